"""The sources of an index, by the names under which they are listed and removed."""

import shutil
from pathlib import Path

import pytest

from langgraph_dynrag.retrieval.manifest import Manifest
from langgraph_dynrag.retrieval.sources import find_source, list_sources, under
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


def manifest():
    """Two files of one folder, one of which has no text, a file ingested alone, and two documents."""
    return Manifest(
        files={
            "/notes/a.txt": {"root": "/notes", "chunks": ["1", "2"]},
            "/notes/sub/b.txt": {"root": "/notes", "chunks": ["2"]},
            "/notes/blank.txt": {"root": "/notes", "chunks": []},
            "/alone.txt": {"root": "/alone.txt", "chunks": ["3"]},
        },
        documents={"letter": {"source": "mail", "chunks": ["4"]}, "mail": {"source": "crm", "chunks": ["5"]}},
    )


def test_files_come_first_and_those_without_text_do_not_count():
    listed = [(s.name, s.kind, s.items, s.chunks) for s in list_sources(manifest())]
    assert listed == [
        ("/alone.txt", "files", 1, 1),
        ("/notes", "files", 2, 2),
        ("crm", "documents", 1, 1),
        ("mail", "documents", 1, 1),
    ]


@pytest.mark.parametrize(
    ("name", "files", "documents"),
    [
        ("/notes", ["/notes/a.txt", "/notes/sub/b.txt", "/notes/blank.txt"], []),
        ("/notes/sub", ["/notes/sub/b.txt"], []),
        (Path("/notes/a.txt"), ["/notes/a.txt"], []),
        ("sub/b.txt", ["/notes/sub/b.txt"], []),
        ("alone.txt", ["/alone.txt"], []),
        ("mail", [], ["letter"]),  # a source comes before an id
        ("letter", [], ["letter"]),
    ],
)
def test_a_name_refers_to_a_folder_a_file_a_source_or_an_id(name, files, documents):
    assert find_source(manifest(), name) == (files, documents)


def test_a_path_never_refers_to_documents():
    with pytest.raises(ConfigurationError, match="nothing in the index came from 'crm'"):
        find_source(manifest(), Path("crm"))


def test_the_sources_of_a_large_index_are_not_all_listed():
    many = Manifest(documents={str(i): {"source": f"source {i:02}", "chunks": []} for i in range(13)})
    with pytest.raises(ConfigurationError, match=r"source 00, .*source 09 and 3 more$"):
        find_source(many, "elsewhere")
    with pytest.raises(ConfigurationError, match="its sources are: none"):
        find_source(Manifest(), "elsewhere")


def test_files_under_a_path_are_those_inside_it_or_ingested_with_it():
    assert under(manifest(), Path("/alone.txt")) == ["/alone.txt"]
    assert under(manifest(), Path("/")) == list(manifest().files)
    assert under(manifest(), Path("/note")) == []
