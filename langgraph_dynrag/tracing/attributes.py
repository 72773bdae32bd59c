"""The attributes of a node's span, from the events that the node recorded.

An attribute is named after the event and its field: `dynprag.verdict.score`. Retrieved documents have OpenInference's
own names, `retrieval.documents.0.document.score`. Tokens are counted on the spans of the model calls; those of a node
are `dynprag.usage.input_tokens`, because viewers add up OpenInference's `llm.token_count` over all spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph_dynrag.events.events import Event
from langgraph_dynrag.events.usage import Usage
from rag_backbone.tracing import Side, Text, document_attributes

_FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("preset",),
    "condensed": ("asked", "question", "turns", "problem"),
    "route": ("route", "by", "problem"),
    "draft": ("tokens", "carried", "ended", "evidence", "in_weights", "in_prompt_because", "shortened_or_left_out"),
    "verdict": ("trigger", "retrieve", "score", "threshold", "position", "tokens", "reason"),
    "query": ("queries", "rewrite"),
    "retrieval": ("query", "returned", "identical", "error"),
    "reformulation": ("problem", "outcome", "query", "rewrite"),
    "evidence_choice": ("by", "kept"),
    "digest": ("documents", "helpful", "problem", "text"),
    "resume": ("kept", "kept_tokens", "discarded", "discarded_tokens", "evidence", "left_out"),
    "injection": (
        "mode",
        "in_weights",
        "in_prompt_because",
        "left_out",
        "trained",
        "translated",
        "strength",
        "forgetting",
        "routing",
        "conflicts",
        "preparing_seconds",
    ),
    "inserted": ("problem", "passages"),
    "budget": ("which", "limit"),
    "accepted": ("tokens",),
    "final_answer": ("taken", "reason"),
    "answer": ("answer", "short_answer"),
}
"""The fields of each kind of event that become attributes."""
_TEXTS: dict[str, Side] = {
    "condensed.asked": "input",
    "condensed.question": "input",
    "verdict.reason": "output",
    "query.queries": "input",
    "retrieval.query": "input",
    "retrieval.error": "input",
    "reformulation.query": "input",
    "digest.text": "output",
    "resume.kept": "output",
    "resume.discarded": "output",
    "injection.conflicts": "output",
    "answer.answer": "output",
    "answer.short_answer": "output",
}
"""The fields that hold text of the question or of the answer, which may have to be hidden."""


def node_attributes(events: Sequence[Event]) -> dict[str, Any]:
    """Return the attributes of a node's span.

    Args:
        events: The events that the node recorded. If it recorded several of a kind, an attribute holds a list.
    """
    found: dict[str, Any] = {"dynprag.events": [event["type"] for event in events]}
    documents: list[Any] = []
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        kinds.setdefault(event["type"], []).append(_with_tokens(event))
        if event["type"] == "retrieval":
            documents.extend(event["documents"])
    for kind, recorded in kinds.items():
        for name in _FIELDS.get(kind, ()):
            values = [event[name] for event in recorded if event.get(name) is not None]
            if values:
                value = values[0] if len(recorded) == 1 else values
                side = _TEXTS.get(f"{kind}.{name}")
                found[f"dynprag.{kind}.{name}"] = value if side is None else Text(value, side)
    if warnings := [str(warning) for event in events if (warning := event.get("warning"))]:
        found["dynprag.warnings"] = Text(warnings, "output")
    return {**found, **document_attributes(documents), **_usage(events)}


def _with_tokens(event: Event) -> Mapping[str, Any]:
    return {**event, "tokens": len(event["pieces"])} if event["type"] == "draft" else event


def _usage(events: Sequence[Event]) -> dict[str, Any]:
    usage = Usage.of_events(events)
    if not usage.calls:
        return {}
    tokens: Mapping[str, Any] = usage.tokens or {}
    return {
        "dynprag.usage.calls": usage.calls,
        "dynprag.usage.input_tokens": tokens.get("input_tokens"),
        "dynprag.usage.output_tokens": tokens.get("output_tokens"),
    }
