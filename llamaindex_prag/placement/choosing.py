"""Chooses which of several documents act, by a router, for callers that already have the documents.

`service` does the same for retrieved passages, whose adapters it also makes; here every document has an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.placer import best_scored
from llamaindex_prag.placement.routing import DocumentRoute
from llamaindex_prag.placement.service import router_named
from rag_backbone.errors import AdapterError, ConfigurationError

_NEED_NO_TEXT: tuple[DocumentRoute, ...] = ("retrieval", "ask")


@dataclass(frozen=True, slots=True)
class ChosenDocuments:
    """Which documents act, and why."""

    acting: tuple[int, ...]
    """Positions of the documents that act, in their order; empty if none may."""
    scores: tuple[float | None, ...]
    """Score of each document by the router; None if it was not judged."""
    why: str
    """Why these act, or why none does."""


def choose_documents(
    model: AdapterModel,
    question: str,
    documents: Sequence[str | AdapterKey],
    keys: Sequence[AdapterKey],
    *,
    route: DocumentRoute,
    scores: Sequence[float] | None = None,
    max_active: int = 1,
) -> ChosenDocuments:
    """Choose the documents that a question is about.

    Args:
        model: The model with its adapters.
        question: The question.
        documents: The documents' texts, or the keys of their adapters.
        keys: The key of each document's adapter.
        route: The router's name.
        scores: Retrieval scores; None if there are none, and then the first document is the best retrieved.
        max_active: Maximum number of documents that act.

    Raises:
        AdapterError: If there is not one score for each document.
        ConfigurationError: If the route is unknown or needs the text of a document that is given by its key, the
            question is blank, or `max_active` is not from 1 to the model's `max_adapters`.
    """
    if not 1 <= max_active <= model.max_adapters:
        raise ConfigurationError(
            f"max_active is {max_active}; it must be from 1 to {model.max_adapters} (max_adapters)"
        )
    if scores is not None and len(scores) != len(documents):
        raise AdapterError(f"{len(scores)} scores for {len(documents)} documents; give one per document")
    router = router_named(route, model, known=get_args(DocumentRoute))
    if route not in _NEED_NO_TEXT and any(isinstance(d, AdapterKey) for d in documents):
        raise ConfigurationError(
            f"route={route!r} compares the question with the documents' texts, but a document is given by its key; "
            "pass its text, or choose route='ask' or 'retrieval'"
        )
    if not question.strip():
        raise ConfigurationError("the question is blank; a route chooses the documents that a question is about")
    if not documents:
        return ChosenDocuments((), (), "there are no documents")
    retrieved = [None] * len(documents) if scores is None else list(scores)
    why = f"the best of {len(documents)} by route={route!r}"
    if router is None:
        return ChosenDocuments(_best(keys, retrieved, max_active), tuple(retrieved), why)
    candidates = [
        Candidate(str(i), d if isinstance(d, str) else "", score=score)
        for i, (d, score) in enumerate(zip(documents, retrieved, strict=True))
    ]
    found = router.scores(question, candidates, keys)
    if found.refused:
        return ChosenDocuments((), found.scores, found.refused)
    ranks = [-math.inf if score is None else score for score in found.scores]
    return ChosenDocuments(_best(keys, ranks, max_active), found.scores, why)


def _best(keys: Sequence[AdapterKey], ranks: Sequence[float | None], count: int) -> tuple[int, ...]:
    return tuple(sorted(best_scored(keys, ranks, count)))
