"""The record of how an answer was written, built from the graph's result or state.

A trace holds the probability, entropy and trigger score of every token; where the trigger fired and why; queries,
documents and discarded text; and counts and seconds by node. `str(trace)` is the readable form and `to_dict()` the
serialisable one. In a notebook, a trace displays itself as HTML (see `langgraph_dynrag.trace.html`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from langgraph_dynrag.drafts.tasks import CallCost
from langgraph_dynrag.events.answer_warnings import answer_warnings
from langgraph_dynrag.events.events import (
    AcceptedEvent,
    DraftEvent,
    Event,
    ReasoningEvent,
    ReformulationEvent,
    ResumeEvent,
    RetrievalEvent,
    VerdictEvent,
    events_of,
)
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.seakr.uncertainty import total_cost
from langgraph_dynrag.trace.draft_trace import DraftTrace, Fate, TokenTrace
from langgraph_dynrag.trace.html import fragment, page
from langgraph_dynrag.trace.lines import event_lines
from langgraph_dynrag.trace.rounds import seconds_by_node
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True)
class Trace:
    """The record of one answer.

    Example:
        >>> result = graph.invoke({"question": "..."})  # doctest: +SKIP
        >>> print(Trace.from_state(result))  # doctest: +SKIP
    """

    question: str
    answer: str
    short_answer: str
    sources: tuple[Mapping[str, Any], ...]
    events: tuple[Event, ...]
    steps: tuple[DraftTrace | Event, ...] = field(default=(), repr=False)
    """Drafts with their tokens, and the other events between them."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Trace:
        """Build the trace from the result of `invoke`, from `get_state(...).values`, or from an unfinished run's state.

        Raises:
            ConfigurationError: If the state holds no trace.
        """
        events: tuple[Event, ...] = tuple(state.get("trace") or ())
        if not events:
            raise ConfigurationError(
                f"a mapping with the keys {sorted(state)} holds no trace; pass the result of graph.invoke(...), or "
                "graph.get_state(config).values"
            )
        return cls(
            question=str(state.get("question") or events[0].get("question") or ""),
            answer=str(state.get("answer") or ""),
            short_answer=str(state.get("short_answer") or ""),
            sources=tuple(state.get("sources") or ()),
            events=events,
            steps=tuple(_steps(events)),
        )

    @property
    def drafts(self) -> list[DraftTrace]:
        """All drafts, in order."""
        return [step for step in self.steps if isinstance(step, DraftTrace)]

    @property
    def retrievals(self) -> list[RetrievalEvent]:
        """All searches, with query, documents, error and seconds."""
        return events_of(self.events, RetrievalEvent)

    @property
    def warnings(self) -> list[str]:
        """Warnings for the reader of the answer, such as failed searches."""
        return answer_warnings(self.events)

    @property
    def seconds(self) -> dict[str, float]:
        """Working time by node."""
        return seconds_by_node(self.events)

    @property
    def sampling(self) -> dict[str, float]:
        """Cost of the samples for triggers, selectors and final answers: sequences, tokens, seconds; empty if none."""
        # Verdicts, choices of evidence and final answers carry a cost.
        return total_cost([cost for e in self.events if isinstance(cost := e.get("cost"), dict)])

    @property
    def usage(self) -> Usage:
        """The usage that the provider reported for all model calls. `str()` of it is a readable line."""
        return Usage.of_events(self.events)

    @property
    def counts(self) -> dict[str, int]:
        """Number of searches, searches without new results, rewrites, drafts, and tokens by what happened to them."""
        fates = [t.fate for d in self.drafts for t in d.tokens]
        computed = ("forward_tokens", "cached_tokens")  # not reported by remote models
        events: Sequence[Mapping[str, Any]] = self.events
        told = [name for name in computed if any(name in e for e in events)]
        cost = {name: sum(e.get(name) or 0 for e in events) for name in told}
        if reasoning := sum(e.get("tokens", 0) for e in events_of(self.events, ReasoningEvent)):
            cost["reasoning_tokens"] = reasoning
        if failures := sum(len(d.failures) for d in self.drafts):
            cost["failed_requests"] = failures
        sampled = self.sampling
        if sampled:
            cost |= {f"sampled_{name}": int(sampled[name]) for name in ("sequences", "tokens")}
        return {
            "retrievals": len(self.retrievals),
            "nothing_new": sum(1 for r in self.retrievals if not any(d.get("new") for d in r.get("documents") or ())),
            "rewrites": sum(1 for e in events_of(self.events, ReformulationEvent) if e.get("rewrite")),
            "drafts": len(self.drafts),
            "accepted_tokens": fates.count("accepted"),
            "discarded_tokens": fates.count("discarded"),
            **cost,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold. `from_state` rebuilds the trace from it."""
        return {
            "question": self.question,
            "answer": self.answer,
            "short_answer": self.short_answer,
            "sources": [dict(s) for s in self.sources],
            "warnings": self.warnings,
            "trace": [dict(e) for e in self.events],
            "counts": self.counts,
            "seconds": self.seconds,
            "usage": self.usage.to_state(),
        }

    def save_html(self, path: str | Path) -> Path:
        """Write the trace as one self-contained HTML file, atomically."""
        from rag_backbone.loading.cache_folder import atomic_file

        target = Path(path)
        with atomic_file(target) as temporary:
            temporary.write_text(page(self), "utf-8")
        return target

    def _repr_html_(self) -> str:
        return fragment(self)

    def __str__(self) -> str:
        lines = [f"Question: {self.question}"]
        for step in self.steps:
            lines += _draft_lines(step) if isinstance(step, DraftTrace) else event_lines(step)
        lines.append(f"Answer: {self.answer}")
        if self.short_answer and self.short_answer != self.answer:
            lines.append(f"Short answer: {self.short_answer}")
        lines += [f"Warning: {warning}" for warning in self.warnings]
        lines += [f"  [{s.get('number', '?')}] {name_of(s)}" for s in self.sources]
        lines.append("  " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in self.counts.items()))
        if self.usage.calls:
            lines.append(f"  {self.usage}")
        lines.append("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items()))
        return "\n".join(lines)

    def __repr__(self) -> str:
        counted = f"{self.counts['retrievals']} retrievals, {self.counts['drafts']} drafts"
        told = "".join(f"; warning: {warning}" for warning in self.warnings)
        return f"Trace({self.question!r}: {counted}{told})"


def _steps(events: Sequence[Event]) -> list[DraftTrace | Event]:
    """Return the events in order, each draft joined with its verdict and with what happened to its tokens."""
    steps: list[DraftTrace | Event] = []
    for i, event in enumerate(events):
        if event.get("type") == "draft":
            end = next((j for j in range(i + 1, len(events)) if events[j].get("type") == "draft"), len(events))
            steps.append(_draft(cast("DraftEvent", event), events[i + 1 : end]))
        elif event.get("type") not in ("question", "answer", "accepted", "verdict", "query", "calls"):
            steps.append(event)
    return steps


def _draft(event: DraftEvent, following: Sequence[Event]) -> DraftTrace:
    """Join a draft with the events after it. Events of earlier versions may lack fields."""
    verdict = next(iter(events_of(following, VerdictEvent)), None)
    accepted = next(iter(events_of(following, AcceptedEvent)), None)
    resume = next(iter(events_of(following, ResumeEvent)), None)
    kept = accepted.get("tokens") if accepted is not None else None if resume is None else resume.get("kept_tokens")
    kept = kept or 0
    gone = 0 if resume is None else resume.get("discarded_tokens") or 0
    scores = () if verdict is None else verdict.get("scores") or ()
    fired = verdict.get("position") if verdict is not None and verdict.get("retrieve") else None
    logprobs, entropies = event.get("logprobs") or (), event.get("entropies") or ()
    tokens = []
    for t, piece in enumerate(event.get("pieces") or ()):
        fate: Fate = "accepted" if t < kept else "discarded" if t < kept + gone else "looked ahead"
        signals = (_at(logprobs, t), _at(entropies, t), _at(scores, t))
        tokens.append(TokenTrace(piece, fate, *signals, fired=fired == t))
    told: Mapping[str, Any] = event
    cost = {name: told[name] for name in CallCost.__annotations__ if told.get(name) is not None}
    evidence, failures = tuple(event.get("evidence") or ()), tuple(event.get("failures") or ())
    return DraftTrace(tuple(tokens), verdict, event.get("ended", ""), evidence, cost, failures)


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _draft_lines(draft: DraftTrace) -> list[str]:
    kept, gone = draft.having("accepted").strip(), draft.having("discarded").strip()
    lines = [f"  wrote: {kept}"] if kept else []
    if draft.failures:
        lines.insert(0, f"  asked {len(draft.failures) + 1} times: {', '.join(draft.failures)}")
    if gone:
        lines.append(f"  discarded: {gone}")
    if not (kept or gone) and draft.tokens:  # the run stopped before the draft was accepted or discarded
        lines.append(f"  drafted: {draft.text.strip()}")
    if draft.verdict is not None and draft.verdict.get("retrieve"):
        # A trigger that discards the draft as a whole points at no token.
        by_token = draft.verdict.get("scores") or draft.verdict.get("position")
        fired = next((t.text.strip() for t in draft.tokens if t.fired), "") if by_token else ""
        lines.append(f"  -> {draft.verdict.get('reason', 'search')}" + (f" at {fired!r}" if fired else ""))
    return lines
