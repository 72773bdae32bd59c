"""Retrievers over a `LocalIndex` that search its content at the time of the query, not of their creation."""

from __future__ import annotations

from typing import Any, Protocol

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document

from langgraph_dynrag.retrieval.local_retriever import LocalRetriever


class VectorIndex(Protocol):
    """An index that is searched by dense vectors: `LocalIndex`."""

    def nearest(self, query: str, k: int) -> list[tuple[Document, float]]:
        """Return the `k` chunks nearest to a query, with their cosine distances."""


class LiveVectors:
    """The dense vectors of an index, with the vector-store interface that `DenseRetriever` uses.

    Args:
        index: The index.
    """

    def __init__(self, index: VectorIndex) -> None:
        self.index = index

    def similarity_search_with_score(self, query: str, k: int = 4) -> list[tuple[Document, float]]:
        """Return the nearest documents with their cosine distances."""
        return self.index.nearest(query, k)


class LiveBM25Retriever(LocalRetriever):
    """BM25 over an index; see `BM25Retriever` for the scores."""

    index: Any
    """The `LocalIndex`."""

    def document_frequency(self, word: str) -> int | None:
        """Return the number of chunks that contain a word; see `BM25Retriever.document_frequency`."""
        current = self.index.bm25()
        found: int | None = None if current is None else current.document_frequency(word)
        return found

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
    ) -> list[Document]:
        wanted = self._wanted(k)
        current = self.index.bm25()
        if current is None:
            return []
        found: list[Document] = current._get_relevant_documents(query, run_manager=run_manager, k=wanted)  # noqa: SLF001
        return found
