"""What the tests of retrieval share."""

import json

import pytest

from tests.langgraph_dynrag.retrieval.indexes import make_index


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "notes"
    source.mkdir()
    (source / "bridge.md").write_text("# The bridge\n\nThe Cooper's Bridge was built by the mason Aldous Wray.")
    (source / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    lines = [
        {"title": "Wray", "text": "Aldous Wray was born in Hallin."},
        {"title": "Pike", "text": "Joan Pike sings."},
    ]
    (source / "people.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return source


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text("# Bridge\n\nAldous Wray built the xylobridge.")
    (folder / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    return folder


@pytest.fixture
def index(tmp_path, notes):
    made = make_index(tmp_path)
    made.ingest(notes, progress=False)
    return made
