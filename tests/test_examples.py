"""The examples run unchanged, and their data is consistent."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lines(name):
    return [json.loads(line) for line in (ROOT / "examples" / "data" / name).read_text("utf-8").splitlines()]


def test_the_documents_of_every_question_contain_its_answer():
    corpus = {item["title"]: item["text"] for item in lines("corpus.jsonl")}
    for item in lines("questions.jsonl"):
        assert set(item["documents"]) <= set(corpus), item
        text = " ".join(f"{title} {corpus[title]}" for title in item["documents"]).lower()
        assert any(a.lower() in text or a.lower() in ("yes", "no") for a in item["answers"]), item
        assert item["hops"] in (1, 2)


def run_example(name, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_single_nodes_work_in_a_custom_graph(tmp_path):
    told = run_example("own_graph", tmp_path)
    assert "searched: " in told
    assert "Ada" not in told.split("Dear")[0].split("searched: ", 1)[1].splitlines()[0]
    assert "found: Tarn Ellis" in told
    assert "Dear Ada Brook, " in told
    assert "1683" in told.split("Dear Ada Brook, ")[1]


@pytest.mark.slow
def test_the_graph_works_under_a_supervisor(tmp_path):
    told = run_example("supervisor", tmp_path)
    assert "clerk: 228" in told
    assert "[the librarian searched: " in told
    assert "1683" in told.split("librarian: ")[1]
    assert "4 messages in the conversation" in told


@pytest.mark.slow
def test_the_middleware_works_in_an_agent_with_tools(tmp_path):
    told = run_example("agent", tmp_path)
    first, second = told.split("You: ")[1:]
    assert "searched: " in first
    assert "1683" in first.split("ai: ")[1].splitlines()[0]
    assert "[called: years_between {'first': 1683, 'last': 1911}]" in second
    assert "tool: From 1683 to 1911 there are 228 years." in second


@pytest.mark.slow
def test_the_demo_answers_from_the_documents(tmp_path):
    """Runs with the embedded model, the real embeddings and the example's documents, like `make demo`."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "44 chunks embedded" in done.stdout
    assert "unsure, so it searches for: " in done.stdout
    assert "Answer: Patient Anna" in done.stdout
    assert "1 trained" in done.stdout
    assert "from the weights, 41 prompt tokens: 1683" in done.stdout
    assert done.stdout.count("Answer: 1683") == 1  # retrieved while writing, acting in the weights
    assert "<html" in (tmp_path / ".dynprag" / "demo" / "trace.html").read_text("utf-8")


def test_the_studio_configuration_names_an_existing_graph(tmp_path, monkeypatch):
    named = json.loads((ROOT / "langgraph.json").read_text("utf-8"))["graphs"]["dynamic_rag"]
    path, variable = named.split(":")
    assert (ROOT / path).is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("The Cooper's Bridge was built by the mason Aldous Wray.")
    monkeypatch.setenv("DYNPRAG_DOCUMENTS", str(tmp_path / "note.txt"))
    graph = getattr(importlib.import_module("examples.studio"), variable)
    assert set(graph.get_graph().nodes) >= {"begin", "generate", "monitor", "retrieve", "reformulate", "resume"}
