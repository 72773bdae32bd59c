"""A run as rounds: a search with what led to it, and what was written until the next one.

A round begins where a draft makes the trigger fire, or with the first search of a run or of a segment. Pure data:
events in, rounds out. Events of other versions may lack any field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph_dynrag.trace.draft_trace import DraftTrace

_SEARCHING = ("query", "retrieval", "resume")
_OPENING = ("retrieval", "query", "judgement", "reflection")
"""Events that begin a round if something was written since the last search."""


@dataclass(slots=True)
class Round:
    """One search and what was written with it, or what was written before any search."""

    before: DraftTrace | None = None
    """The draft that led to the search; None if nothing was written before it."""
    reason: str = ""
    """Why the search came before anything was written; empty if a draft led to it."""
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """All of its events, including those that drafts are made of."""
    story: list[DraftTrace | Mapping[str, Any]] = field(default_factory=list)
    """Events and drafts after `before`, in order."""

    @property
    def after(self) -> list[DraftTrace]:
        """The drafts that were written after the search."""
        return [part for part in self.story if isinstance(part, DraftTrace)]

    @property
    def searches(self) -> list[Mapping[str, Any]]:
        """The searches; several for several queries, or if a query was rewritten."""
        return [e for e in self.events if e.get("type") == "retrieval"]

    @property
    def asks(self) -> bool:
        """Whether the round has a search, or was about to have one when the record ended."""
        return bool(self.searches or self.queries or (self.before is not None and wants_search(self.before)))

    @property
    def queries(self) -> list[str]:
        """The formulated queries, searched for or not."""
        return [str(q) for e in self.events if e.get("type") == "query" for q in e.get("queries") or ()]

    @property
    def seconds(self) -> dict[str, float]:
        """Working time by node."""
        return seconds_by_node(self.events)

    @property
    def regenerated(self) -> DraftTrace | None:
        """The draft that replaces the discarded text, empty if the model ended there; None if nothing was replaced."""
        return next(iter(self.after), None) if self.discards else None

    @property
    def discards(self) -> bool:
        """Whether text was discarded for the search."""
        return self.before is not None and bool(self.before.having("discarded"))

    @property
    def has_written(self) -> bool:
        """Whether a draft was written, or a continuation selected, after the search."""
        return bool(self.after) or any(e.get("type") == "selection" for e in self.events)


def rounds_of(events: Sequence[Mapping[str, Any]], drafts: Sequence[DraftTrace]) -> list[Round]:
    """Return the rounds of a run.

    Args:
        events: Its events.
        drafts: Its drafts, one per event of the type `draft`.
    """
    rounds = [Round()]
    remaining = iter(drafts)
    for i, event in enumerate(events):
        kind = event.get("type")
        if kind == "draft":
            draft = next(remaining)
            if _leads_to_search(draft, events[i + 1 :]):
                if rounds[-1].discards and not rounds[-1].after:  # regenerated, and judged again
                    rounds[-1].story.append(draft)
                rounds.append(Round(before=draft))
            else:
                rounds[-1].story.append(draft)
        else:
            if kind in _OPENING and rounds[-1].has_written:
                rounds.append(Round())
            if kind == "question":
                rounds[-1].reason = str(event.get("reason") or "")
            rounds[-1].story.append(event)
        rounds[-1].events.append(event)
    return [r for r in rounds if r.before is not None or r.after or any(not _is_plain(e) for e in r.events)] or rounds


def wants_search(draft: DraftTrace) -> bool:
    """Return whether the trigger asked for a search after this draft."""
    return draft.verdict is not None and bool(draft.verdict.get("retrieve"))


def seconds_by_node(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the working time by node, in the order in which the nodes first ran."""
    totals: dict[str, float] = {}
    for event in events:
        if isinstance(spent := event.get("seconds"), int | float) and "node" in event:
            node = str(event["node"])
            totals[node] = totals.get(node, 0.0) + spent
    return totals


def _leads_to_search(draft: DraftTrace, following: Sequence[Mapping[str, Any]]) -> bool:
    kinds = []
    for event in following:
        if event.get("type") == "draft":
            break
        kinds.append(event.get("type"))
    if "resume" in kinds and draft.tokens:
        return True
    return wants_search(draft) and (any(kind in kinds for kind in _SEARCHING) or "accepted" not in kinds)


def _is_plain(event: Mapping[str, Any]) -> bool:
    """Return whether an event shows nothing within a round."""
    return event.get("type") in ("question", "answer", "accepted", "calls")
