"""A draft in a trace: its tokens, with their signals, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from langgraph_dynrag.events.events import VerdictEvent

Fate = Literal["accepted", "discarded", "looked ahead"]


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """One drafted token."""

    text: str
    fate: Fate
    """`looked ahead`: drafted beyond the judged unit, then carried into the next draft or dropped."""
    logprob: float | None = None
    entropy: float | None = None
    score: float | None = None
    """The trigger's score of this token."""
    fired: bool = False
    """Whether the trigger fired at this token."""

    @property
    def probability(self) -> float | None:
        """The probability of the token: the exponential of its log-probability."""
        return None if self.logprob is None else math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class DraftTrace:
    """One draft and what happened to its tokens."""

    tokens: tuple[TokenTrace, ...]
    verdict: VerdictEvent | None
    ended: str
    evidence: tuple[str, ...]
    """Ids of the passages that it was written with."""
    cost: Mapping[str, int]
    failures: tuple[str, ...] = ()
    """Errors of the requests before the one that succeeded."""

    @property
    def text(self) -> str:
        """The draft's text."""
        return "".join(t.text for t in self.tokens)

    def having(self, fate: Fate) -> str:
        """Return the text of the tokens with this fate."""
        return "".join(t.text for t in self.tokens if t.fate == fate)
