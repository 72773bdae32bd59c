"""The events of a run as messages of progress notifications."""

from __future__ import annotations

from typing import Any

from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.lines import event_lines

_CHARACTERS = 300


def progress_message(event: Any) -> str:
    """Return what an event tells a client that waits for the answer; empty for events that tell it nothing.

    Tokens are left out, because one notification each would be many; texts of errors, because they may name files of
    this machine; and what other code sends to the `custom` stream, because it was not meant for clients.
    """
    if not isinstance(event, dict):
        return ""
    match event.get("type"):
        case "verdict":
            told = f"unsure: {event['reason']}" if event["retrieve"] else ""
        case "retrieval":
            names = "; ".join(name_of(d) for d in event["documents"])
            told = f"searched for {event['query']!r}: " + ("failed" if event["error"] else names or "nothing found")
        case "training":
            told = f"training adapters: {event['made']} of {event['of']} documents, {event['part']:.0%}"
        case "condensed" | "route" | "reformulation" | "budget" | "injection" | "closing" | "final_answer":
            told = next(iter(event_lines(event)), "")  # further lines give details
        case _:
            told = ""
    line = " ".join(told.split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]} ..."
