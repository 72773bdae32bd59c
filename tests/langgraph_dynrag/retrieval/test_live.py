"""Retrievers over an index search its content at the time of the query."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.retrieval.live import LiveBM25Retriever, LiveVectors
from rag_backbone.errors import ConfigurationError


class Index:
    """An index whose content changes."""

    def __init__(self):
        self.current = None

    def fill(self, *texts):
        self.current = BM25Retriever.from_documents([Document(text) for text in texts])

    def bm25(self):
        return self.current

    def nearest(self, query, k):
        return [(Document(query), 0.5)] * k


def found(documents):
    return [d.page_content for d in documents]


async def test_each_search_sees_the_current_content():
    index = Index()
    retriever = LiveBM25Retriever(index=index)
    assert retriever.invoke("bees") == []
    index.fill("Bees hum.")
    assert found(retriever.invoke("bees")) == ["Bees hum."]
    index.fill("Bees sting.", "Ants march.")
    assert found(await retriever.ainvoke("bees")) == ["Bees sting."]


async def test_k_of_a_search_overrides_that_of_the_retriever():
    index = Index()
    index.fill(*(f"Bees hum {i}." for i in range(5)))
    retriever = LiveBM25Retriever(index=index, k=2)
    assert [len(retriever.invoke("bees")), len(retriever.invoke("bees", k=4))] == [2, 4]
    assert len(await retriever.ainvoke("bees", k=3)) == 3
    with pytest.raises(ConfigurationError, match="k is 0; at least 1 is needed"):
        retriever.invoke("bees", k=0)


def test_vectors_have_the_interface_of_a_vector_store():
    assert LiveVectors(Index()).similarity_search_with_score("bees", k=2) == [(Document("bees"), 0.5)] * 2
