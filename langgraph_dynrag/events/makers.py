"""Constructors for events that are created in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from langgraph_dynrag.drafts.draft import Draft, Verdict
from langgraph_dynrag.drafts.tasks import CallCost
from langgraph_dynrag.events.events import DraftEvent, VerdictEvent

_E = TypeVar("_E", bound=Mapping[str, Any])


def draft_event(draft: Draft, *, carried: int, evidence: list[str]) -> DraftEvent:
    """Return the event that records a draft.

    Args:
        draft: The draft.
        carried: Number of its tokens carried over from an earlier draft.
        evidence: Ids of the passages that it was written with.
    """
    return DraftEvent(
        type="draft",
        pieces=list(draft.pieces),
        logprobs=list(draft.logprobs),
        entropies=None if draft.entropies is None else list(draft.entropies),
        carried=carried,
        ended=draft.ended,
        evidence=evidence,
    )


def verdict_event(verdict: Verdict, tokens: int) -> VerdictEvent:
    """Return the event that records a verdict on `tokens` tokens."""
    told = verdict.to_state()
    event = VerdictEvent(
        type="verdict",
        tokens=tokens,
        trigger=told["trigger"],
        retrieve=told["retrieve"],
        reason=told["reason"],
        scores=told["scores"],
        score=told["score"],
        threshold=told["threshold"],
        position=told["position"],
        hits=told["hits"],
        cost=told["cost"],
    )
    if verdict.answer is not None and not verdict.retrieve:
        event["warning"] = f"the answer was given up: {verdict.reason}"
    return event


def with_cost(event: _E, cost: CallCost | None) -> _E:
    """Return an event with the cost of a model call, as far as it is known."""
    # Cast, because mypy merges two typed dicts only if both have the same keys.
    return event if cost is None else cast("_E", {**event, **cost})
