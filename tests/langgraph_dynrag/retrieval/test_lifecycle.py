"""Removal of folders, files and added documents from an index, in results and on disk."""

import asyncio
import datetime as dt
import json
import logging
import shutil

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import LocalIndex
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.test_index import CountedEmbeddings, make_index, texts

KINDS = ("dense", "bm25", "hybrid")


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


def all_texts(index, query="xylobridge river bees Tamsin"):
    if not len(index):
        return set()
    return {kind: {d.page_content for d in index.as_retriever(kind, k=50).invoke(query)} for kind in KINDS}


def on_disk(index, word):
    """Return the names of the index's files that contain a word.

    Chroma's vector file is left out, because its unused parts may contain arbitrary memory of this process.
    """
    files = [p for p in index.folder.rglob("*") if p.is_file() and p.name != "data_level0.bin"]
    return [p.name for p in files if word.encode() in p.read_bytes().lower()]


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("how", ["emptied", "moved", "deleted", "a file in its place"])
def test_documents_of_a_missing_or_empty_folder_are_removed_with_a_warning(index, notes, caplog, how):
    retrievers = {kind: index.as_retriever(kind, k=9) for kind in KINDS}
    if how == "moved":
        notes.rename(notes.with_name("moved"))
    else:
        shutil.rmtree(notes)
    if how == "emptied":
        notes.mkdir()
    if how == "a file in its place":
        notes.write_text("")
    with caplog.at_level(logging.WARNING):
        report = index.ingest(notes, progress=False)
    assert (report.removed, report.chunks, len(index)) == (2, 0, 0)
    assert str(notes) in caplog.text
    assert "2 files were removed" in caplog.text
    assert index.sources() == []
    for kind, retriever in retrievers.items():
        assert retriever.invoke("xylobridge river") == [], kind
    assert on_disk(index, "xylobridge") == []


def test_ingesting_a_moved_folder_removes_the_files_of_its_old_location(index, notes, caplog):
    moved = notes.rename(notes.with_name("moved"))
    (moved / "river.txt").unlink()
    report = index.ingest(moved, progress=False)
    assert (report.added, report.removed, report.chunks) == (1, 2, 1)
    assert f"{notes} no longer exists; its 2 files were removed" in caplog.text
    assert [s.name for s in index.sources()] == [str(moved)]
    assert all_texts(index)["dense"] == {"# Bridge\n\nAldous Wray built the xylobridge."}


def test_a_deleted_file_that_was_ingested_alone_is_removed(tmp_path, notes):
    index = make_index(tmp_path)
    index.ingest(notes / "river.txt", progress=False)
    (notes / "river.txt").unlink()
    report = index.ingest(notes / "river.txt", progress=False)
    assert (report.removed, report.chunks) == (1, 0)
    with pytest.raises(ConfigurationError, match="no file or folder"):
        index.ingest(notes / "river.txt", progress=False)


def test_a_deleted_file_is_removed_when_any_parent_folder_is_ingested(tmp_path, notes):
    (notes / "sub").mkdir()
    (notes / "sub" / "bees.txt").write_text("Ida Lund keeps bees.")
    index = make_index(tmp_path)
    index.ingest(notes, progress=False)
    assert index.ingest(notes / "sub", progress=False).unchanged == 1
    assert len(index) == 3
    (notes / "sub" / "bees.txt").unlink()
    (notes / "sub" / "wasps.txt").write_text("Ida Lund fears wasps.")
    index.ingest(notes / "sub", progress=False)
    assert "Ida Lund keeps bees." not in all_texts(index)["dense"]
    assert len(index) == 3


def test_an_empty_folder_is_refused_for_an_empty_index(tmp_path):
    (tmp_path / "empty").mkdir()
    index = make_index(tmp_path)
    with pytest.raises(ConfigurationError, match="contains no text to index"):
        index.ingest(tmp_path / "empty", progress=False)
    assert not index.folder.exists()


# ----------------------------------------------------------------------------------------------- sources and removal


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


def test_a_removed_file_that_still_exists_is_indexed_again_on_the_next_ingestion(index, notes):
    index.remove("bridge.md")
    report = index.ingest(notes, progress=False)
    assert (report.added, report.unchanged, report.chunks) == (1, 1, 2)


def test_words_of_a_changed_file_do_not_stay_on_disk(index, notes):
    index.as_retriever("bm25").invoke("bridge")
    (notes / "bridge.md").write_text("# Bridge\n\nIt fell down.")
    index.ingest(notes, progress=False)
    assert on_disk(index, "xylobridge") == []
    assert all_texts(index)["dense"] == {"# Bridge\n\nIt fell down.", "The river Tamsin crosses Brannoch."}


# ---------------------------------------------------------------------------------------------------- added documents


def loaded():
    """Return documents as LangChain's loaders produce them."""
    return [
        Document("Page one of the report on bees.", metadata={"source": "report.pdf", "page": 0}),
        Document("Page two of the report on wasps.", metadata={"source": "report.pdf", "page": 1}),
        Document("A letter about ants.", id="letter-7", metadata={"source": "https://example.org/letters/7"}),
    ]


def test_loaded_documents_are_found_listed_updated_and_removed(tmp_path):
    index = make_index(tmp_path)
    report = index.add_documents(loaded())
    assert (report.added, report.embedded, report.chunks) == (3, 3, 3)
    for kind in KINDS:
        found = index.as_retriever(kind, k=9).invoke("letter about ants")
        letter = next(d for d in found if "letter" in d.page_content)
        assert letter.id == "letter-7", kind
        assert letter.metadata["source"] == "https://example.org/letters/7"
    assert [s.name for s in index.sources()] == ["https://example.org/letters/7", "report.pdf"]
    again = index.add_documents(loaded())
    assert (again.unchanged, again.embedded) == (3, 0)
    changed = index.add_documents([Document("A letter about moths.", id="letter-7", metadata={"author": "Ida"})])
    assert (changed.changed, changed.embedded, changed.chunks) == (1, 1, 3)
    moths = index.as_retriever("bm25").invoke("letter moths")[0]
    assert (moths.page_content, moths.metadata.get("source")) == ("A letter about moths.", None)
    assert index.as_retriever("bm25").invoke("ants") == []
    assert index.remove("report.pdf").removed == 2
    assert index.remove("letter-7").removed == 1
    assert len(index) == 0


def test_all_documents_of_a_source_can_be_replaced(tmp_path):
    index = make_index(tmp_path)
    index.add_documents(loaded())
    report = index.add_documents(loaded()[:1], replace=True)
    assert (report.unchanged, report.removed, report.chunks) == (1, 1, 2)
    assert index.add_documents([], source="report.pdf", replace=True).removed == 1
    assert [s.name for s in index.sources()] == ["https://example.org/letters/7"]


def test_metadata_is_kept_as_plain_data_or_reported(tmp_path, caplog):
    metadata = {
        "title": "Bees",
        "updated": dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC),
        "day": dt.date(2026, 3, 1),
        "tags": ["a", "b"],
        "none": None,
        "empty": [],
        "loc": {"lines": {"from": 1}},
        "big": 2**70,
        "share": 0.5,
        "ok": True,
        "": "empty key",
        "chroma:document": "x",
        "#tag": 1,
        "$op": 2,
        5: "number",
        "bad\ud800": "\ud83d\ude00",
        "image": b"\x89PNG",
        "nan": float("nan"),
    }
    index = make_index(tmp_path)
    report = index.add_documents([Document.model_construct(page_content="On bees.", metadata=metadata, id=None)])
    assert report.notes == (("document 1", "metadata 'image' (bytes) cannot be stored"),)
    assert "'image' (bytes)" in caplog.text
    expected = {
        "title": "Bees",
        "updated": "2026-03-01T10:00:00+00:00",
        "day": "2026-03-01",
        "tags": ["a", "b"],
        "empty": [],
        "loc": {"lines": {"from": 1}},
        "big": str(2**70),
        "share": 0.5,
        "ok": True,
        "": "empty key",
        "chroma:document": "x",
        "#tag": 1,
        "$op": 2,
        "5": "number",
        "bad\ufffd": "\U0001f600",
        "nan": "nan",
    }
    for kind in KINDS:
        found = index.as_retriever(kind).invoke("bees")[0].metadata
        del found["score"]
        assert found == expected, kind


def test_documents_without_text_and_duplicate_ids_are_reported(tmp_path):
    documents = [
        Document(" \n", metadata={"source": "blank.pdf"}),
        Document("One.", id="a"),
        Document("Two.", id="a"),
    ]
    report = make_index(tmp_path).add_documents(documents)
    assert report.skipped == (("blank.pdf", "has no text"),)
    assert report.notes == (("a", "the id 'a' was given twice; the last document with it is kept"),)
    assert (report.added, report.chunks) == (1, 1)


def test_lone_surrogates_in_added_text_and_ids_are_repaired(tmp_path):
    index = make_index(tmp_path)
    index.add_documents([Document("Bees \ud83d\ude00 and \ud800 wasps.", id="a\udfff")])
    found = index.as_retriever("dense").invoke("bees")[0]
    assert (found.page_content, found.id) == ("Bees \U0001f600 and \ufffd wasps.", "a\ufffd")


def test_a_long_document_is_split_and_its_chunks_are_removed_with_it(tmp_path):
    index = make_index(tmp_path)
    long = " ".join(f"word{i}" for i in range(2000))
    report = index.add_documents([Document(long, id="long", metadata={"date": dt.date(2026, 1, 1)})])
    assert (report.added, report.embedded) == (1, report.chunks)
    assert report.chunks > 10
    part = index.as_retriever("bm25", k=1).invoke("word1999")[0]
    assert part.id.startswith("long#")
    assert part.metadata["date"] == "2026-01-01"
    index.add_documents([Document("Short now.", id="long")])
    assert texts(index) == {"Short now."}


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (["a text"], r"documents\[0\] is 'a text' \(str\).*add_texts"),
        ("a text", "a list of LangChain documents"),
        (Document("a"), "a list of LangChain documents"),
        (None, "a list of LangChain documents"),
    ],
)
def test_anything_other_than_documents_is_refused_before_anything_is_written(tmp_path, documents, words):
    index = make_index(tmp_path)
    with pytest.raises(ConfigurationError, match=words):
        index.add_documents(documents)
    assert not index.folder.exists()


def test_texts_are_added_with_metadata_and_ids(tmp_path):
    index = make_index(tmp_path)
    index.add_texts(["Bees.", "Ants."], [{"n": 1}, {"n": 2}], ids=["b", "a"], source="insects")
    assert {(d.id, d.metadata["n"]) for d in index.as_retriever("dense").invoke("x")} == {("b", 1), ("a", 2)}
    with pytest.raises(ConfigurationError, match="2 texts and 1 ids"):
        index.add_texts(["Bees.", "Ants."], ids=["b"])
    with pytest.raises(ConfigurationError, match="a list of strings"):
        index.add_texts("Bees.")


def test_documents_can_be_added_without_blocking_the_event_loop(tmp_path):
    index = make_index(tmp_path)
    assert asyncio.run(index.aadd_documents(loaded(), source="mail")).added == 3
    assert [(s.name, s.items) for s in index.sources()] == [("mail", 3)]


def test_ingesting_a_folder_leaves_added_documents_alone(index, notes):
    index.add_documents(loaded(), source="mail")
    shutil.rmtree(notes)
    report = index.ingest(notes, progress=False)
    assert (report.removed, report.chunks) == (2, 3)


# ---------------------------------------------------------------------------------------------------------- format 1


def test_an_index_of_format_1_is_read_and_converted(tmp_path, index, notes):
    path = index.folder / "manifest.json"
    current = json.loads(path.read_text())
    files = {}
    for key, entry in current["files"].items():
        root = entry.pop("root")
        splitter = entry.pop("splitter")
        files[f"{root}\0{key.removeprefix(root + '/')}"] = entry
    settings = {"splitter": splitter, "embeddings": current["embeddings"]}
    path.write_text(json.dumps({"version": 1, "settings": settings, "files": files}))
    old = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    assert len(texts(old)) == 2
    assert [s.name for s in old.sources()] == [str(notes)]
    report = old.ingest(notes, progress=False)
    assert (report.unchanged, report.embedded) == (2, 0)
    assert json.loads(path.read_text())["version"] == 2
