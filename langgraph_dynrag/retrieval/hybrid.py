"""Combine several retrievers by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from langgraph_dynrag.retrieval.local_retriever import LocalRetriever


class HybridRetriever(LocalRetriever):
    """Fuse rankings: a document's score is the sum of `1 / (constant + rank)` over the rankings that contain it.

    Documents are the same if their ids are equal or, without ids, their texts. Retrievers that accept `k` are asked for
    `depth` documents.
    """

    retrievers: list[BaseRetriever] = Field(min_length=1)
    depth: int = Field(default=20, ge=1)
    """Number of documents taken from each ranking; raised to `k` if smaller."""
    constant: int = Field(default=60, ge=1)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        wanted = self._wanted(k)
        config: Any = {"callbacks": run_manager.get_child()}
        rankings = [r.invoke(query, config, k=max(wanted, self.depth)) for r in self.retrievers]
        return fused(rankings, wanted, self.constant)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        wanted = self._wanted(k)
        config: Any = {"callbacks": run_manager.get_child()}
        depth = max(wanted, self.depth)
        rankings = await asyncio.gather(*(r.ainvoke(query, config, k=depth) for r in self.retrievers))
        return fused(rankings, wanted, self.constant)


def fused(rankings: Sequence[Sequence[Document]], k: int, constant: int = 60) -> list[Document]:
    """Return the best `k` documents of several rankings; `metadata["score"]` becomes the fused score.

    Of documents with equal scores, the one that appeared first in the rankings comes first.
    """
    scores: dict[str, float] = {}
    documents: dict[str, Document] = {}
    for ranking in rankings:
        named: set[str] = set()
        for rank, document in enumerate(ranking, 1):
            key = document.id or document.page_content
            if key in named:
                continue
            named.add(key)
            documents.setdefault(key, document)
            scores[key] = scores.get(key, 0.0) + 1 / (constant + rank)
    best = sorted(scores, key=lambda key: -scores[key])[:k]
    return [
        Document(
            documents[key].page_content,
            id=documents[key].id,
            metadata={**documents[key].metadata, "score": scores[key]},
        )
        for key in best
    ]
