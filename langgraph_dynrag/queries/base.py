"""The `QueryFormulator` protocol, a base class, and checks: a query formulator decides *what* to retrieve.

Formulators that ask a language model do not call it themselves. They return prompts; the node, which knows whether it
runs synchronously, calls the model and passes the replies back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from langgraph_dynrag.drafts.draft import DraftView, Signal, Verdict
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Queries, or the prompts whose replies are turned into queries.

    Each query is searched for, and the first `k` documents of each are interleaved.
    """

    queries: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    """Instructions for the model, each answered independently."""

    def __post_init__(self) -> None:
        check_fields(self)


@runtime_checkable
class QueryFormulator(Protocol):
    """Turns a draft and a trigger's verdict into queries.

    `plan` returns queries, or prompts with which the model is asked for them; `finish` reads its replies.
    `BaseFormulator` implements everything but `plan`.
    """

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the formulator reads."""

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:
        """Return the queries, or the prompts that ask the model for them."""

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:
        """Turn the model's replies to the plan's prompts, in order, into queries.

        Only called if the plan has prompts. If no query is returned, the node falls back to the question.
        """


def plan_of(formulator: QueryFormulator, view: DraftView, verdict: Verdict) -> QueryPlan:
    """Return the formulator's plan.

    Raises:
        ConfigurationError: If it returns anything but a `QueryPlan`.
    """
    returned: object = formulator.plan(view, verdict)
    if not isinstance(returned, QueryPlan):
        raise ConfigurationError(
            f"{formulator!r}: plan() returned {shown(returned)}; a QueryPlan is needed, such as "
            "QueryPlan(queries=('text',))"
        )
    return returned


def queries_of(
    formulator: QueryFormulator, view: DraftView, verdict: Verdict, replies: Sequence[str]
) -> tuple[str, ...]:
    """Return the queries that the formulator builds from the replies to its plan's prompts.

    Raises:
        ConfigurationError: If it returns anything but a list or tuple of strings.
    """
    returned: object = formulator.finish(view, verdict, replies)
    if not isinstance(returned, list | tuple) or not all(isinstance(query, str) for query in returned):
        raise ConfigurationError(
            f"{formulator!r}: finish() returned {shown(returned)}; a tuple of strings is needed, such as ('text',)"
        )
    return tuple(returned)


class BaseFormulator:
    """Base class for formulators; by default they read no signals and do not ask the model.

    Subclasses override what differs; `needs` may be a class attribute or a property. Fields of dataclasses are checked
    against their annotations.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the formulator reads; none by default."""
        return frozenset()

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return no queries; not called, since the plan has no prompts."""
        return ()


def asked_before(query: str, earlier: Sequence[str]) -> bool:
    """Return whether a query was used before, ignoring case, whitespace and Unicode compatibility forms."""
    key = _normalised(query)
    return any(key == _normalised(other) for other in earlier)


def _normalised(query: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def last_words(query: str, tokens: int, count: Callable[[str], int]) -> str:
    """Truncate a query to its last words that fit into `tokens` tokens, with whitespace collapsed."""
    # A word has at least one token, so at most `tokens` words can be kept.
    words = query.split()[-tokens:]
    while len(words) > 1 and count(" ".join(words)) > tokens:
        words = words[1:]
    return " ".join(words)
