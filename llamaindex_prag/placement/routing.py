"""Routing: which of the retrieved passages a question is about, so that its adapter acts and no other.

Merged adapters weaken each other, so the right one has to be found. A router scores the passages; the best-scored ones
act, as many as `max_active` says:

    retrieval   by the scores with which they were retrieved
    lexical     by these and the words that they share with the question (`lexical_router`): dense scores alone often
                prefer a passage on the same subject to the one that names what is asked for
    ask         by what their adapters answer (`ask_router`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.candidate import Candidate

Route = Literal["retrieval", "lexical", "ask"]
"""How the passages that act are chosen from the retrieved ones."""
DocumentRoute = Literal["retrieval", "lexical", "unsure", "ask"]
"""How documents are chosen where the model may also answer alone: as above, or `"unsure"` (`unsure_router`)."""


@dataclass(frozen=True, slots=True)
class RoutingScores:
    """How likely a question is about each passage."""

    scores: tuple[float | None, ...]
    """By passage, comparable within one question only; None: not judged, and ranked after all others."""
    answers: tuple[str | None, ...] = ()
    """What each passage's adapter answered alone; empty if none was asked."""
    refused: str = ""
    """Why no passage may act; empty if they may."""


class Router(Protocol):
    """Scores passages by how likely a question is about them."""

    def scores(
        self, question: str, candidates: Sequence[Candidate], keys: Sequence[AdapterKey | None]
    ) -> RoutingScores:
        """Return a score for each passage.

        Args:
            question: The question.
            candidates: The retrieved passages.
            keys: Keys of the adapters that exist; None where there is none.
        """
        ...
