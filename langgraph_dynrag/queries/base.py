"""What a query formulator is: it decides *what* to retrieve.

Formulators that ask a language model do not call it. They state the prompts, and the node, which knows whether it
runs synchronously, calls the model and hands the replies back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from langgraph_dynrag.draft import DraftView, Signal, Verdict


@dataclass(frozen=True, slots=True)
class Plan:
    """Queries, or the prompts whose replies will become queries."""

    queries: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """Instructions for the model, each answered on its own."""


@runtime_checkable
class QueryFormulator(Protocol):
    """Turns a draft and a trigger's verdict into queries."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads."""
        ...

    def plan(self, view: DraftView, verdict: Verdict) -> Plan:
        """The queries, or what to ask the model for them."""
        ...

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:
        """The queries, given the model's replies to the plan's prompts, in order.

        Only called if the plan has prompts. No query at all makes the node fall back to the question.
        """
        ...


class WithoutModel:
    """A base for formulators that need neither signals nor the model."""

    @property
    def needs(self) -> frozenset[Signal]:
        """None."""
        return frozenset()

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Not reached: the plan has no prompts."""
        return ()


def asked_before(query: str, earlier: Sequence[str]) -> bool:
    """Whether a query was asked already; case and white space make no difference."""
    key = " ".join(query.lower().split())
    return any(key == " ".join(other.lower().split()) for other in earlier)


def last_words(query: str, tokens: int, count: Callable[[str], int]) -> str:
    """The query's last words, within a limit of tokens; white space collapsed."""
    # A word is a token at least, so this many words are the most that can stay.
    words = query.split()[-tokens:]
    while len(words) > 1 and count(" ".join(words)) > tokens:
        words = words[1:]
    return " ".join(words)
