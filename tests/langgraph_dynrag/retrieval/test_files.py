"""Files that were read become documents, and documents chunks."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import Splitter
from langgraph_dynrag.retrieval.files import as_document
from rag_backbone.documents import ReadDocument
from rag_backbone.errors import ConfigurationError


def test_a_splitter_with_too_large_an_overlap_is_refused():
    with pytest.raises(ConfigurationError, match="cannot overlap by 900"):
        Splitter(900, 900)


def test_the_id_of_a_chunk_depends_on_its_text_and_metadata_only():
    splitter = Splitter(15, 0)
    first = splitter.split(Document("One bridge.\n\nTwo rivers.", metadata={"b": 1, "a": 2}))
    again = splitter.split(Document("Two rivers.\n\nA mill.", id="other", metadata={"a": 2, "b": 1}))
    assert [c.page_content for c in first] == ["One bridge.", "Two rivers."]
    assert first[1].id == again[0].id
    assert len({c.id for c in [*first, *again]}) == 3
    elsewhere = splitter.split(Document("One bridge.", metadata={"a": 2}))
    assert elsewhere[0].id != first[0].id


def test_a_repeated_text_is_one_chunk_and_a_blank_one_none():
    assert len(Splitter(14, 0).split(Document("Tick tock.\n\nTick tock.\n\nTick tock."))) == 1
    assert Splitter().split(Document(" \n\n ")) == []


@pytest.mark.parametrize("overlap", [-1, 10, 11])
def test_an_overlap_must_be_smaller_than_the_chunk(overlap):
    with pytest.raises(ConfigurationError, match=f"chunks of 10 characters cannot overlap by {overlap}"):
        Splitter(10, overlap)


def test_a_file_becomes_a_document_with_its_source_and_title():
    read = ReadDocument("Text.", "Bridge", "bridge.md", {"page": 2, "source": "overridden"})
    made = as_document(read)
    assert made == Document("Text.", metadata={"page": 2, "source": "bridge.md", "title": "Bridge"})
