"""Passages carry the metadata that people need (titles, pages, dates), and are shown by name, not by hash."""

import datetime as dt

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.evidence import name_of, passage, render
from langgraph_dynrag.trace.trace import Trace
from llamaindex_prag.guards.conflict_policies import date_of

SHA = "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b"


def test_a_date_object_is_kept_in_the_passage_and_orders_documents():
    moment = dt.datetime(2026, 3, 1, 10, 30, tzinfo=dt.UTC)
    made = passage("Text.", {"last_modified": moment, "day": dt.date(2025, 1, 2)}, None)
    assert made["metadata"] == {"last_modified": "2026-03-01T10:30:00+00:00", "day": "2025-01-02"}
    assert date_of(made["metadata"]) == moment


def test_nested_metadata_is_kept_in_the_passage():
    metadata = {"authors": ["Ida", "Joan"], "loc": {"lines": {"from": 1, "to": 9}}}
    assert passage("Text.", metadata, None)["metadata"] == metadata


def test_metadata_that_cannot_be_kept_is_listed_in_the_passage():
    kept = passage("Text.", {"image": b"\x89PNG", "page": 3}, None)["metadata"]
    assert kept == {"page": 3, "metadata_left_out": ["metadata 'image' (bytes) cannot be stored"]}


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"file_name": "old_bridge.pdf", "page_label": "3"}, "old bridge, page 3"),
        ({"source": "/notes/old_bridge.md"}, "old bridge"),
        ({"title": "Bridges", "page": 3}, "Bridges"),
        ({"source": SHA}, ""),
    ],
)
def test_the_title_of_a_passage_comes_from_the_fields_that_loaders_set(metadata, title):
    made = passage("Built in 1954.", metadata, SHA)
    assert made["title"] == title
    assert render([made]) == (f"[1] {title}: Built in 1954." if title else "[1] Built in 1954.")


def test_a_source_without_a_title_is_shown_by_its_first_words():
    made = passage("Joan Pike sings.", {}, SHA)
    assert made["id"] == SHA
    assert name_of(made) == "Joan Pike sings."
    assert name_of(passage("Joan Pike sings.", {"url": "https://example.org/?id=7"}, SHA)) == "example.org"
    # A source in an older checkpoint may lack fields.
    assert name_of({"title": None, "source": SHA, "id": SHA, "text": "Joan Pike sings."}) == "Joan Pike sings."


def untitled_run():
    from langgraph_dynrag import create_dynamic_rag
    from langgraph_dynrag.retrieval import BM25Retriever
    from tests.langgraph_dynrag.scripted import ScriptedChatModel, said

    found = BM25Retriever.from_documents([Document("Joan Pike sings in Hallin.", id=SHA)])
    graph = create_dynamic_rag(ScriptedChatModel(replies=[said("So the answer is Hallin.")]), found, preset="single")
    return Trace.from_state(graph.invoke({"question": "Where does Joan Pike sing?"}))


def test_the_trace_shows_names_rather_than_hashes():
    trace = untitled_run()
    page, _, record = trace._repr_html_().partition("All events")
    assert SHA in record
    for view in (str(trace), page):
        assert "Joan Pike sings in Hallin." in view
        assert SHA not in view
