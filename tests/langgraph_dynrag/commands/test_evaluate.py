"""`dynprag evaluate`."""

import importlib.util
import json

import pytest

from rag_backbone.errors import ConfigurationError, MissingExtraError
from tests.langgraph_dynrag.commands.command import run

FAST = ("--long-context", "0", "--limit", "2", "--preset", "search_tag")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_two_commands_give_a_report_and_the_second_time_nothing_is_asked(index, model, questions, tmp_path):
    common = ("--model", str(model), "--index", str(index), "--questions", str(questions), *FAST)
    result = run("evaluate", *common, "--html", "report.html")
    assert result.stdout.splitlines()[0].endswith("2 of 2 questions")
    assert "2 questions with answers are too few" in result.stdout
    assert "report: report.html" in result.stderr
    assert "search_tag" in (tmp_path / "report.html").read_text("utf-8")
    records = (tmp_path / ".dynprag" / "evaluation.jsonl").read_text("utf-8")
    assert len(records.splitlines()) == 2 * 3
    told = json.loads(run("evaluate", *common, "--json").stdout)
    assert (tmp_path / ".dynprag" / "evaluation.jsonl").read_text("utf-8") == records
    assert [r["method"] for r in told["rows"]] == ["no_retrieval", "single", "search_tag"]
    assert told["complete"]


def test_the_paragraphs_of_a_data_set_are_searched_without_an_index(model, tmp_path):
    entry = {
        "id": "2hop__1",
        "question": "Who mined the tower?",
        "answer": "Doll",
        "paragraphs": [{"title": "Tower", "paragraph_text": "Doll mined the tower.", "is_supporting": True}],
    }
    (tmp_path / "m.jsonl").write_text(json.dumps(entry))
    told = json.loads(run("evaluate", "--questions", "m.jsonl", "--model", str(model), *FAST, "--json").stdout)
    assert next(r for r in told["rows"] if r["method"] == "single")["recall"]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "flair"), "there is no preset 'flair'"),
        (("--minutes", "0"), "minutes is 0"),
        (("--html", "."), "--html is the folder"),
        (("--judge-model", "embedded"), "no judge was named; add --judge"),
        (("--index", "nowhere"), "the index nowhere is empty; fill it first: dynprag index"),
    ],
)
def test_mistakes_are_explained(arguments, message, index, model, questions):
    given = ("--model", str(model), "--index", str(index), "--questions", str(questions))
    with pytest.raises(ConfigurationError, match=message):
        run("evaluate", *given, *arguments)


def test_a_wrong_line_of_the_questions_is_named(index, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "One?"}\n{"text": "Two?"}\n')
    with pytest.raises(ConfigurationError, match=r"q.jsonl, line 2: .* needed are JSON lines"):
        run("evaluate", "--index", str(index), "--questions", "q.jsonl")


def test_the_encoding_of_the_questions_can_be_named(index, model, tmp_path):
    (tmp_path / "q.txt").write_bytes("Who built the b\u00fcro?\n".encode("cp1252"))
    common = ("evaluate", "--index", str(index), "--questions", "q.txt", "--model", str(model), *FAST)
    with pytest.raises(ConfigurationError, match="--encoding cp1252"):
        run(*common)
    result = run(*common, "--encoding", "cp1252", "--json")
    assert json.loads(result.stdout)["asked"][0]["question"] == "Who built the b\u00fcro?"


@pytest.mark.skipif(importlib.util.find_spec("langchain_classic") is not None, reason="langchain-classic is installed")
def test_a_judge_needs_its_extra(index, questions):
    with pytest.raises(MissingExtraError, match=r"dynprag\[eval\]"):
        run("evaluate", "--index", str(index), "--questions", str(questions), "--judge", "qa", *FAST)


@pytest.mark.skipif(importlib.util.find_spec("ragas") is not None, reason="ragas is installed")
def test_a_metric_of_ragas_needs_its_extra(index, questions):
    with pytest.raises(MissingExtraError, match=r"the judge 'ragas:faithfulness' needs ragas.*dynprag\[ragas\]"):
        run("evaluate", "--index", str(index), "--questions", str(questions), "--judge", "ragas:faithfulness", *FAST)
