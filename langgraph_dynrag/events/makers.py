"""Events that are made in more than one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from langgraph_dynrag.drafts.draft import Draft, Verdict
from langgraph_dynrag.drafts.tasks import CallCost
from langgraph_dynrag.events.events import DraftEvent, VerdictEvent

_E = TypeVar("_E", bound=Mapping[str, Any])


def draft_event(draft: Draft, *, carried: int, evidence: list[str]) -> DraftEvent:
    """Return the record of a draft.

    Args:
        draft: The draft.
        carried: How many of its tokens were known before.
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
    """Return the record of a verdict on `tokens` tokens."""
    told = verdict.to_state()
    return VerdictEvent(
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


def with_cost(event: _E, cost: CallCost | None) -> _E:
    """Return an event with what a call of the model took, as far as that is known."""
    # Cast, because mypy merges two typed dicts only if both have the same keys.
    return event if cost is None else cast("_E", {**event, **cost})
