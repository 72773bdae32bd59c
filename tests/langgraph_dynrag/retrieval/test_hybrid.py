"""Reciprocal rank fusion, worked out by hand, and the retriever that applies it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, ValidationError

from langgraph_dynrag.retrieval import BM25Retriever, HybridRetriever
from langgraph_dynrag.retrieval.hybrid import fused
from rag_backbone.errors import ConfigurationError


def documents(ids):
    return [Document(f"text {i}", id=i) for i in ids]


def test_scores_are_sums_of_reciprocal_ranks():
    found = fused([documents("ab"), documents("bc")], k=3, constant=1)
    # b is second (1/3) and first (1/2), a is first (1/2), c is second (1/3).
    assert [d.id for d in found] == ["b", "a", "c"]
    assert [d.metadata["score"] for d in found] == pytest.approx([5 / 6, 1 / 2, 1 / 3])


def test_documents_with_equal_scores_keep_the_order_of_their_first_appearance():
    assert [d.id for d in fused([documents("ab"), documents("cd")], k=4)] == ["a", "c", "b", "d"]


def test_documents_without_ids_are_the_same_if_their_texts_are():
    found = fused([[Document("x"), Document("y")], [Document("x")]], k=9)
    assert [d.page_content for d in found] == ["x", "y"]


def test_a_document_counts_once_in_each_ranking():
    assert fused([documents("aa")], k=9, constant=1)[0].metadata["score"] == 1 / 2


def test_the_documents_of_the_rankings_are_not_changed():
    given = [Document("x", id="x", metadata={"score": 7.0, "title": "T"})]
    assert fused([given], k=1)[0].metadata == {"score": 1 / 61, "title": "T"}
    assert given[0].metadata == {"score": 7.0, "title": "T"}


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4), st.integers(1, 7), st.integers(1, 60))
def test_the_best_k_documents_are_returned(rankings, k, constant):
    found = fused([documents(ids) for ids in rankings], k, constant)
    scores = {
        i: sum(1 / (constant + ids.index(i) + 1) for ids in rankings if i in ids) for ids in rankings for i in ids
    }
    assert len(found) == min(k, len(scores))
    assert [d.metadata["score"] for d in found] == pytest.approx(sorted(scores.values(), reverse=True)[:k])
    assert all(d.metadata["score"] == pytest.approx(scores[d.id]) for d in found)


class Asked(BaseRetriever):
    """Records how many documents it is asked for."""

    asked: list[int] = Field(default_factory=list)

    def _get_relevant_documents(self, query, *, run_manager, k=3):
        self.asked.append(k)
        return documents("abcdefgh"[:k])


def test_each_retriever_is_asked_for_the_depth_or_for_k_if_that_is_more():
    part = Asked()
    hybrid = HybridRetriever(retrievers=[part], k=2, depth=4)
    assert len(hybrid.invoke("?")) == 2
    assert len(hybrid.invoke("?", k=6)) == 6
    assert part.asked == [4, 6]


async def test_asynchronous_and_synchronous_searches_find_the_same():
    parts = [BM25Retriever.from_documents(documents(ids)) for ids in ("abc", "cd")]
    hybrid = HybridRetriever(retrievers=parts, k=2)
    found = hybrid.invoke("text c")
    assert found[0].id == "c"
    assert await hybrid.ainvoke("text c") == found
    assert len(await hybrid.ainvoke("text", k=4)) <= 4


async def test_a_hybrid_needs_a_retriever_and_a_positive_k():
    with pytest.raises(ValidationError, match="retrievers"):
        HybridRetriever(retrievers=[])
    with pytest.raises(ConfigurationError, match="k is 0; at least 1 is needed"):
        HybridRetriever(retrievers=[Asked()]).invoke("?", k=0)
    with pytest.raises(ConfigurationError, match="k is 0; at least 1 is needed"):
        await HybridRetriever(retrievers=[Asked()]).ainvoke("?", k=0)
