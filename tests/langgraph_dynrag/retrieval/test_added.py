"""Added documents are prepared: ids, plain metadata, valid text, and a report of what was left out."""

import datetime as dt

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval.added import prepare_documents
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import KINDS, make_index


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


def test_documents_without_ids_get_one_from_text_and_metadata():
    def ids(*documents):
        return [d.id for _, d in prepare_documents(documents).documents]

    assert ids(Document("a", metadata={"x": 1, "y": 2})) == ids(Document("a", metadata={"y": 2, "x": 1}))
    assert len(set(ids(Document("a"), Document("b"), Document("a", metadata={"x": 1})))) == 3
    assert len(ids(Document("a"), Document("a"))) == 1


def test_documents_are_listed_under_the_given_source_or_their_own():
    documents = [Document("a", metadata={"source": "a.pdf"}), Document("b")]
    assert [source for source, _ in prepare_documents(iter(documents)).documents] == ["a.pdf", "documents"]
    assert {source for source, _ in prepare_documents(documents, "crm").documents} == {"crm"}


def test_prepared_documents_are_copies():
    document = Document("a", metadata={"day": dt.date(2026, 3, 1)})
    [(_, prepared)] = prepare_documents([document]).documents
    assert prepared.metadata == {"day": "2026-03-01"}
    assert document.metadata == {"day": dt.date(2026, 3, 1)}
    assert document.id is None
