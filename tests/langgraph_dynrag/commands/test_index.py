"""`dynprag index`."""

import json

import pytest

from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.commands.command import run


def test_indexing_again_reports_that_nothing_changed(index):
    counts = json.loads(run("index", str(index.parent), "--index", str(index), "--json").stdout)
    assert counts == {
        "added": 0,
        "changed": 0,
        "removed": 0,
        "unchanged": 2,
        "embedded": 0,
        "chunks": 2,
        "skipped": [],
        "notes": [],
    }


def test_what_was_indexed_is_listed_and_forgotten(tmp_path):
    notes, into = tmp_path / "notes", ("--index", str(tmp_path / "index"))
    notes.mkdir()
    (notes / "bridge.md").write_text("# Bridge\n\nAldous Wray built it.")
    (notes / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    assert "empty" in run("index", "--list", *into).stdout
    run("index", str(notes), *into)
    assert run("index", "--list", *into).stdout == f"{notes}: 2 files, 2 chunks\n"
    [listed] = json.loads(run("index", "--list", "--json", *into).stdout)
    assert listed == {"name": str(notes), "kind": "files", "items": 2, "chunks": 2}
    assert "1 removed" in run("index", "--forget", "river.txt", *into).stdout
    (notes / "bridge.md").unlink()
    (notes / "river.txt").unlink()
    assert json.loads(run("index", str(notes), "--json", *into).stdout)["removed"] == 1
    with pytest.raises(ConfigurationError, match="nothing in the index came from"):
        run("index", "--forget", str(notes), *into)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "nothing was given; give one of FOLDER"), (["notes", "--list"], "FOLDER and --list was given")],
)
def test_indexing_listing_and_forgetting_exclude_each_other(tmp_path, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        run("index", *arguments, "--index", str(tmp_path / "index"))
