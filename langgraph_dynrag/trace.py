"""What happened while an answer was written, made from the graph's result or state.

For every token its probability, entropy and trigger score; where the trigger fired and why; queries, documents, what
was discarded; counts, and seconds by node. `str(trace)` to read, `to_dict()` to keep, and in a notebook the trace shows
itself (see `trace_html`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from langgraph_dynrag.answer_warnings import answer_warnings
from langgraph_dynrag.event_lines import event_lines
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.samples import total_cost
from langgraph_dynrag.usage import Usage
from rag_backbone.errors import ConfigurationError

Fate = Literal["accepted", "discarded", "looked ahead"]


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """One drafted token."""

    text: str
    fate: Fate
    """Tokens looked ahead at were drafted beyond the unit: carried into the next draft, or dropped."""
    logprob: float | None = None
    entropy: float | None = None
    score: float | None = None
    """The trigger's."""
    fired: bool = False
    """Whether the trigger named this token."""

    @property
    def probability(self) -> float | None:
        """The exponential of the log-probability."""
        return None if self.logprob is None else math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class DraftTrace:
    """One draft and what became of it."""

    tokens: tuple[TokenTrace, ...]
    verdict: Mapping[str, Any] | None
    ended: str
    evidence: tuple[str, ...]
    """Ids of the passages that it was written with."""
    cost: Mapping[str, int]
    failures: tuple[str, ...] = ()
    """What requests failed of before one succeeded."""

    @property
    def text(self) -> str:
        """The draft's text."""
        return "".join(t.text for t in self.tokens)


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
    events: tuple[Mapping[str, Any], ...]
    steps: tuple[DraftTrace | Mapping[str, Any], ...] = field(default=(), repr=False)
    """Drafts with their tokens, and between them the other events."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Trace:
        """The trace of a result of `invoke`, of `get_state(...).values`, or of an unfinished run.

        Raises:
            ConfigurationError: If there is nothing to trace in it.
        """
        events = tuple(state.get("trace") or ())
        if not events:
            raise ConfigurationError(
                f"no trace in a mapping with the keys {sorted(state)}; give it what graph.invoke(...) returned, or "
                "graph.get_state(config).values"
            )
        return cls(
            question=str(state.get("question") or events[0].get("question", "")),
            answer=str(state.get("answer") or ""),
            short_answer=str(state.get("short_answer") or ""),
            sources=tuple(state.get("sources") or ()),
            events=events,
            steps=tuple(_steps(events)),
        )

    @property
    def drafts(self) -> list[DraftTrace]:
        """All drafts."""
        return [step for step in self.steps if isinstance(step, DraftTrace)]

    @property
    def retrievals(self) -> list[Mapping[str, Any]]:
        """All searches: query, documents, error, seconds."""
        return [e for e in self.events if e["type"] == "retrieval"]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the answer should be told: searches that failed, for example."""
        return answer_warnings(self.events)

    @property
    def seconds(self) -> dict[str, float]:
        """Working time by node."""
        totals: dict[str, float] = {}
        for event in self.events:
            if "seconds" in event and "node" in event:
                totals[event["node"]] = totals.get(event["node"], 0.0) + event["seconds"]
        return totals

    @property
    def sampling(self) -> dict[str, float]:
        """What was sampled for triggers, selectors and final answers: sequences, tokens, seconds; empty if nothing."""
        sampling = ("verdict", "evidence_choice", "final_answer")
        costs = [e["cost"] for e in self.events if e["type"] in sampling and e.get("cost")]
        return total_cost(costs)

    @property
    def usage(self) -> Usage:
        """The usage that the provider reported for all model calls; `str()` of it is a line to read."""
        return Usage.of_events(self.events)

    @property
    def counts(self) -> dict[str, int]:
        """Searches, searches that brought nothing new, rewrites, drafts, and tokens by what became of them."""
        fates = [t.fate for d in self.drafts for t in d.tokens]
        computed = ("forward_tokens", "cached_tokens")  # a remote model does not tell
        told = [name for name in computed if any(name in e for e in self.events)]
        cost = {name: sum(e.get(name) or 0 for e in self.events) for name in told}
        if reasoning := sum(e["tokens"] for e in self.events if e["type"] == "reasoning"):
            cost["reasoning_tokens"] = reasoning
        if failures := sum(len(d.failures) for d in self.drafts):
            cost["failed_requests"] = failures
        sampled = self.sampling
        if sampled:
            cost |= {f"sampled_{name}": int(sampled[name]) for name in ("sequences", "tokens")}
        return {
            "retrievals": len(self.retrievals),
            "nothing_new": sum(1 for r in self.retrievals if not any(d["new"] for d in r["documents"])),
            "rewrites": sum(1 for e in self.events if e["type"] == "reformulation" and e.get("rewrite")),
            "drafts": len(self.drafts),
            "accepted_tokens": fates.count("accepted"),
            "discarded_tokens": fates.count("discarded"),
            **cost,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; `from_state` makes the trace of it again."""
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
        """Write the view as one self-contained HTML file, atomically."""
        from langgraph_dynrag.trace_html import page
        from rag_backbone.cache_folder import atomic_file

        target = Path(path)
        with atomic_file(target) as temporary:
            temporary.write_text(page(self), "utf-8")
        return target

    def _repr_html_(self) -> str:
        from langgraph_dynrag.trace_html import fragment

        return fragment(self)

    def __str__(self) -> str:
        lines = [f"Question: {self.question}"]
        for step in self.steps:
            lines += _draft_lines(step) if isinstance(step, DraftTrace) else _event_lines(step)
        lines.append(f"Answer: {self.answer}")
        if self.short_answer and self.short_answer != self.answer:
            lines.append(f"Short answer: {self.short_answer}")
        lines += [f"Warning: {warning}" for warning in self.warnings]
        lines += [f"  [{s['number']}] {name_of(s)}" for s in self.sources]
        lines.append("  " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in self.counts.items()))
        if self.usage.calls:
            lines.append(f"  {self.usage}")
        lines.append("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items()))
        return "\n".join(lines)

    def __repr__(self) -> str:
        counted = f"{self.counts['retrievals']} retrievals, {self.counts['drafts']} drafts"
        told = "".join(f"; warning: {warning}" for warning in self.warnings)
        return f"Trace({self.question!r}: {counted}{told})"


def _steps(events: Sequence[Mapping[str, Any]]) -> list[DraftTrace | Mapping[str, Any]]:
    """Events in order, each draft joined with the verdict on it and what became of its tokens."""
    steps: list[DraftTrace | Mapping[str, Any]] = []
    i = 0
    while i < len(events):
        event = events[i]
        if event["type"] != "draft":
            if event["type"] not in ("question", "answer", "accepted", "verdict", "query", "calls"):
                steps.append(event)
            i += 1
            continue
        end = next((j for j in range(i + 1, len(events)) if events[j]["type"] == "draft"), len(events))
        steps.append(_draft(event, events[i + 1 : end]))
        i += 1
    return steps


def _draft(event: Mapping[str, Any], following: Sequence[Mapping[str, Any]]) -> DraftTrace:
    verdict = next((e for e in following if e["type"] == "verdict"), None)
    accepted = next((e["tokens"] for e in following if e["type"] == "accepted"), None)
    resume = next((e for e in following if e["type"] == "resume"), None)
    kept = accepted if accepted is not None else (resume or {}).get("kept_tokens", 0)
    gone = 0 if resume is None else resume["discarded_tokens"]
    scores = (verdict or {}).get("scores") or []
    position = (verdict or {}).get("position")
    entropies = event["entropies"] or []
    tokens = []
    for t, piece in enumerate(event["pieces"]):
        fate: Fate = "accepted" if t < kept else "discarded" if t < kept + gone else "looked ahead"
        tokens.append(
            TokenTrace(
                piece,
                fate,
                _at(event["logprobs"], t),
                _at(entropies, t),
                _at(scores, t),
                fired=bool(verdict and verdict["retrieve"] and position == t),
            )
        )
    cost = {name: event[name] for name in ("prompt_tokens", "forward_tokens", "cached_tokens") if name in event}
    return DraftTrace(tuple(tokens), verdict, event["ended"], tuple(event["evidence"]), cost,
                      tuple(event.get("failures") or ()))  # fmt: skip


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _draft_lines(draft: DraftTrace) -> list[str]:
    kept = "".join(t.text for t in draft.tokens if t.fate == "accepted").strip()
    gone = "".join(t.text for t in draft.tokens if t.fate == "discarded").strip()
    lines = [f"  wrote: {kept}"] if kept else []
    if draft.failures:
        lines.insert(0, f"  asked {len(draft.failures) + 1} times: {', '.join(draft.failures)}")
    if gone:
        lines.append(f"  discarded: {gone}")
    if not (kept or gone) and draft.tokens:  # the run has stopped before anything became of it
        lines.append(f"  drafted: {draft.text.strip()}")
    if draft.verdict is not None and draft.verdict["retrieve"]:
        fired = next((t.text.strip() for t in draft.tokens if t.fired), "")
        lines.append(f"  -> {draft.verdict['reason']}" + (f" at {fired!r}" if fired else ""))
    return lines


def _event_lines(event: Mapping[str, Any]) -> list[str]:
    kind = event["type"]
    if kind == "retrieval":
        titles = [f"{name_of(d)}{'' if d['new'] else ' (seen)'}" for d in event["documents"]]
        found = "; ".join(titles) or (f"nothing, the search failed: {event['error']}" if event["error"] else "nothing")
        return [f"  searched: {event['query']}", f"    found: {found}"]
    if kind == "reformulation" and (event.get("rewrite") or event.get("problem")):
        after = f"searching again: {event['query']}" if event.get("rewrite") else event["outcome"]
        return [f"  {event['problem']}: {after}"]
    if kind == "injection":
        made = [f"{event[how]} {how}" for how in ("trained", "translated") if event[how]]
        if event.get("forgetting") is not None:
            made.append(f"strength {event['strength']:.2g}, forgets {event['forgetting']:.2g} nats")
        lines = [f"  into the weights: {len(event['in_weights'])} passages" + (f" ({', '.join(made)})" if made else "")]
        if training := event.get("training"):
            waited, guess = event["preparing_seconds"], training["estimated"]
            lines.append(
                f"    trained first: {', '.join(training['documents'])} ({waited:.0f} s, estimated {guess:.0f} s)"
            )
        lines += [f"    {id_} stays in the prompt: {why}" for id_, why in event["in_prompt_because"].items()]
        lines += [f"    {id_} is left out: {why}" for id_, why in event.get("left_out", {}).items()]
        pairs = (event.get("conflicts") or {}).get("pairs", [])
        return lines + [f"    contradiction, {p['nats']:.1f} nats: {' / '.join(p['answers'])}" for p in pairs]
    if kind == "budget":
        return [f"  budget reached: {event['which']} ({event['limit']:g})"]
    if kind == "evidence_choice":
        names = {c["id"]: c["title"] or c["id"] for c in event["candidates"]}
        kept = "; ".join(names[id_] for id_ in event["kept"]) or "nothing new"
        return [f"    kept, as the {event['by']} of {len(names)}: {kept}"]
    if kind == "inserted" and event["problem"]:
        return [f"  told the model ({event['problem']}): {' '.join(event['text'].split())}"]
    if kind == "closing":
        return ["  asked outright for the short answer"]
    if kind == "kept":
        return [f"  the answer before was kept: {event['reason']}"]
    if kind == "degraded":
        return [f"  not watched: {event['reason']}"]
    return event_lines(event)
