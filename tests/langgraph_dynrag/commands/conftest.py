"""What the tests of the commands share: a model, an index, and questions, all tiny."""

import json

import pytest

from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.commands.command import run
from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny random model in a folder, as `--model` takes it."""
    folder = tiny_folder(tmp_path_factory.mktemp("model"))
    assert CausalLM.from_pretrained(str(folder)).engine is not None
    return folder


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    notes = tmp_path_factory.mktemp("notes")
    (notes / "bridge.md").write_text("# Bridge\n\nThe Cooper's Bridge was built by the mason Aldous Wray.")
    (notes / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    folder = notes / "index"
    result = run("index", str(notes), "--index", str(folder))
    assert "2 files added" in result.stdout
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory):
    file = tmp_path_factory.mktemp("questions") / "q.jsonl"
    lines = [{"question": f"Who built bridge {i} in the capital?", "answers": ["Aldous Wray"]} for i in range(4)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return file
