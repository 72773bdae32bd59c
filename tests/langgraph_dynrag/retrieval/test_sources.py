"""The sources of an index, by the names under which they are listed and removed."""

import shutil

import pytest

from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import all_texts, on_disk


def test_sources_are_listed_with_their_counts(index, notes):
    index.add_texts(["Ida Lund keeps bees.", "Joan Pike sings."], source="crm")
    listed = [(s.name, s.kind, s.items, s.chunks) for s in index.sources()]
    assert listed == [(str(notes), "files", 2, 2), ("crm", "documents", 2, 2)]
    assert str(index.sources()[1]) == "crm: 2 documents, 2 chunks"


@pytest.mark.parametrize("form", ["folder", "string", "relative", "file", "shown name"])
def test_a_source_can_be_removed_by_any_of_its_names(index, notes, monkeypatch, form):
    monkeypatch.chdir(notes.parent)
    names = {
        "folder": notes,
        "string": str(notes),
        "relative": "notes/",
        "file": notes / "bridge.md",
        "shown name": "bridge.md",
    }
    retriever = index.as_retriever("bm25", k=9)
    assert retriever.invoke("xylobridge")
    report = index.remove(names[form])
    assert report.removed == (1 if form in ("file", "shown name") else 2)
    assert retriever.invoke("xylobridge") == []
    assert "xylobridge" not in str(all_texts(index))
    assert on_disk(index, "xylobridge") == []


def test_a_source_can_be_removed_after_its_folder_was_deleted(index, notes):
    shutil.rmtree(notes)
    assert index.remove(notes).removed == 2
    assert len(index) == 0


def test_the_error_for_an_unknown_source_suggests_a_known_one(index, notes):
    with pytest.raises(ConfigurationError) as refused:
        index.remove(str(notes) + "s")
    assert f"did you mean {str(notes)!r}" in str(refused.value)
    assert len(index) == 2
