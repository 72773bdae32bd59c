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

_FIELDS: dict[str, dict[str, Side | None]] = {
    "question": {"preset": None},
    "condensed": {"asked": "input", "question": "input", "turns": None, "problem": None},
    "route": {"route": None, "by": None, "problem": None},
    "draft": {
        "tokens": None,
        "carried": None,
        "ended": None,
        "evidence": None,
        "in_weights": None,
        "in_prompt_because": None,
        "shortened_or_left_out": None,
    },
    "verdict": {
        "trigger": None,
        "retrieve": None,
        "score": None,
        "threshold": None,
        "position": None,
        "tokens": None,
        "reason": "output",
    },
    "query": {"queries": "input", "rewrite": None},
    "retrieval": {"query": "input", "returned": None, "identical": None, "error": "input"},
    "reformulation": {"problem": None, "outcome": None, "query": "input", "rewrite": None},
    "evidence_choice": {"by": None, "kept": None},
    "digest": {"documents": None, "helpful": None, "problem": None, "text": "output"},
    "resume": {
        "kept": "output",
        "kept_tokens": None,
        "discarded": "output",
        "discarded_tokens": None,
        "evidence": None,
        "left_out": None,
    },
    "injection": {
        "mode": None,
        "in_weights": None,
        "in_prompt_because": None,
        "left_out": None,
        "trained": None,
        "translated": None,
        "strength": None,
        "forgetting": None,
        "routing": None,
        "conflicts": "output",
        "preparing_seconds": None,
    },
    "inserted": {"problem": None, "passages": None},
    "budget": {"which": None, "limit": None},
    "accepted": {"tokens": None},
    "final_answer": {"taken": None, "reason": None},
    "answer": {"answer": "output", "short_answer": "output"},
}
"""The fields of each kind of event that become attributes, and whose text they hold."""


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
        for name, side in _FIELDS.get(kind, {}).items():
            values = [event[name] for event in recorded if event.get(name) is not None]
            if values:
                value = values[0] if len(recorded) == 1 else values
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
