"""Removal of folders, files and added documents from an index, in results and on disk."""

import asyncio
import datetime as dt
import logging
import shutil

import pytest
from langchain_core.documents import Document

from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import KINDS, all_texts, loaded, make_index, on_disk, texts

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
