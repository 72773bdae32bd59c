"""What a query formulator is: it decides *what* to retrieve.

Formulators that ask a language model do not call it. They state the prompts, and the node, which knows whether it
runs synchronously, calls the model and hands the replies back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from langgraph_dynrag.drafts.draft import DraftView, Signal, Verdict
from langgraph_dynrag.triggers.base import check_needs
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Queries, or the prompts whose replies will become queries."""

    queries: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """Instructions for the model, each answered on its own."""

    def __post_init__(self) -> None:
        check_fields(self)


@runtime_checkable
class QueryFormulator(Protocol):
    """Turns a draft and a trigger's verdict into queries."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads."""
        ...

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:
        """The queries, or what to ask the model for them."""
        ...

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:
        """The queries, given the model's replies to the plan's prompts, in order.

        Only called if the plan has prompts. No query at all makes the node fall back to the question.
        """
        ...


def check_formulator(formulator: QueryFormulator) -> None:
    """Refuse a formulator whose `needs` are no set of signals.

    Raises:
        ConfigurationError: Listing the signals that exist.
    """
    check_needs(formulator)


def plan_of(formulator: QueryFormulator, view: DraftView, verdict: Verdict) -> QueryPlan:
    """Return the formulator's plan.

    Raises:
        ConfigurationError: If what it returns is none.
    """
    returned: object = formulator.plan(view, verdict)
    if not isinstance(returned, QueryPlan):
        raise ConfigurationError(
            f"{formulator!r}: plan() returned {shown(returned)}; a Plan is needed, such as Plan(queries=('text',))"
        )
    return returned


def queries_of(
    formulator: QueryFormulator, view: DraftView, verdict: Verdict, replies: Sequence[str]
) -> tuple[str, ...]:
    """Return the queries that the formulator makes of the replies to its plan's prompts.

    Raises:
        ConfigurationError: If what it makes is no sequence of texts.
    """
    returned: object = formulator.finish(view, verdict, replies)
    if not isinstance(returned, list | tuple) or not all(isinstance(query, str) for query in returned):
        raise ConfigurationError(
            f"{formulator!r}: finish() returned {shown(returned)}; a tuple of texts is needed, such as ('text',)"
        )
    return tuple(returned)


class BaseFormulator:
    """A base for formulators that read no signals and do not ask the model.

    A subclass overrides what is different, `needs` as a class attribute or as a property. One that is a dataclass has
    its fields checked against their annotations.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """No signals."""
        return frozenset()

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Not reached: the plan has no prompts."""
        return ()


def asked_before(query: str, earlier: Sequence[str]) -> bool:
    """Whether a query was asked already; case, white space and forms of letters make no difference."""
    key = _normalised(query)
    return any(key == _normalised(other) for other in earlier)


def _normalised(query: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def last_words(query: str, tokens: int, count: Callable[[str], int]) -> str:
    """The query's last words, within a limit of tokens; white space collapsed."""
    # A word is a token at least, so this many words are the most that can stay.
    words = query.split()[-tokens:]
    while len(words) > 1 and count(" ".join(words)) > tokens:
        words = words[1:]
    return " ".join(words)
