"""What a retriever searches, as far as that can be found out: its documents, and a text that identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document

from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.retrieval.dense import DenseRetriever
from langgraph_dynrag.retrieval.hybrid import HybridRetriever
from langgraph_dynrag.retrieval.live import LiveBM25Retriever
from langgraph_dynrag.retrieval.retriever import Retriever
from rag_backbone.documents.names import title_of
from rag_backbone.metrics import normalised_answer

_CLOSED = frozenset({"yes", "no", "noanswer"})
"""Answers that no document has to contain."""


def documents_of(retriever: Retriever | None) -> Sequence[Document] | None:
    """Return the documents that a retriever searches; None if they cannot be listed."""
    if isinstance(retriever, BM25Retriever):
        return retriever.documents
    if isinstance(retriever, HybridRetriever):
        return next((found for r in retriever.retrievers if (found := documents_of(r)) is not None), None)
    if isinstance(retriever, DenseRetriever | LiveBM25Retriever):
        index: Any = getattr(retriever.store if isinstance(retriever, DenseRetriever) else retriever, "index", None)
        searched: BM25Retriever | None = index.bm25() if hasattr(index, "bm25") else None
        return None if searched is None else searched.documents
    return None


def identity_of(retriever: Retriever | None, documents: Sequence[Document] | None) -> str:
    """Return a text that changes with the retriever's class, its options and, if they are known, its documents."""
    if retriever is None:
        return "none"
    options: dict[str, Any] = {
        name: getattr(retriever, name)
        for name in ("k", "search_type", "search_kwargs", "depth", "constant")
        if hasattr(retriever, name)
    }
    parts = [type(r).__name__ for r in getattr(retriever, "retrievers", ())]
    digest = "" if documents is None else _digest(documents)
    return f"{type(retriever).__name__} {parts} {options} {digest}"


def missing_answers(questions: Sequence[EvaluationQuestion], documents: Iterable[Document]) -> list[EvaluationQuestion]:
    """Return the questions none of whose answers occurs in any document; those with a yes or no are left out."""
    text = "\n".join(f" {normalised_answer(f'{title_of(d.metadata)} {d.page_content}')} " for d in documents)
    return [q for q in questions if expects_passage(q) and not any(_occurs(a, text) for a in q.answers)]


def expects_passage(question: EvaluationQuestion) -> bool:
    """Return whether a question has answers, and all of them are texts that a document may contain."""
    return bool(question.answers) and not any(normalised_answer(a) in _CLOSED for a in question.answers)


def _occurs(answer: str, text: str) -> bool:
    wanted = normalised_answer(answer)
    return bool(wanted) and f" {wanted} " in text


def _digest(documents: Sequence[Document]) -> str:
    found = hashlib.sha256()
    for text in sorted(f"{d.id}\0{d.page_content}" for d in documents):
        found.update(text.encode("utf-8", "backslashreplace"))
    return found.hexdigest()
