"""The dense retriever over any vector store whose distance is one minus the cosine."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import DenseRetriever
from langgraph_dynrag.retrieval.metadata import stored
from rag_backbone.errors import ConfigurationError


class Store:
    """A vector store that records its searches."""

    def __init__(self):
        self.searches = []

    def similarity_search_with_score(self, query, k):
        self.searches.append((query, k))
        metadata = stored({"title": "Bridge", "tags": ["stone"]})
        return [(Document("The bridge.", id="1", metadata=metadata), 0.25)][:k]


async def test_the_score_is_the_cosine_and_nested_metadata_is_restored():
    retriever = DenseRetriever(store=Store())
    [found] = retriever.invoke("bridge")
    assert (found.page_content, found.id) == ("The bridge.", "1")
    assert found.metadata == {"title": "Bridge", "tags": ["stone"], "score": 0.75}
    assert await retriever.ainvoke("bridge") == [found]


async def test_k_of_a_search_overrides_that_of_the_retriever():
    store = Store()
    retriever = DenseRetriever(store=store, k=5)
    retriever.invoke("a")
    retriever.invoke("b", k=2)
    await retriever.ainvoke("c", k=7)
    assert store.searches == [("a", 5), ("b", 2), ("c", 7)]
    with pytest.raises(ConfigurationError, match="k is 0; at least 1 is needed"):
        retriever.invoke("d", k=0)


def test_queries_are_normalised_and_repaired():
    store = Store()
    DenseRetriever(store=store).invoke("bru\u0308cke \ud800")
    assert store.searches[0][0] == "br\u00fccke \ufffd"
