"""The events of a run as messages of progress notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.lines import event_lines

_CHARACTERS = 300


def progress_message(event: Mapping[str, Any]) -> str:
    """Return what an event says to somebody who waits for the answer; empty for events that say nothing to them.

    The texts of errors are left out, because they may name files of this machine.
    """
    match event.get("type"):
        case "token":
            return ""  # one notification for each would be many
        case "verdict":
            told = f"unsure: {event['reason']}" if event["retrieve"] else ""
        case "retrieval":
            names = "; ".join(name_of(d) for d in event["documents"])
            told = f"searched for {event['query']!r}: " + ("failed" if event["error"] else names or "nothing found")
        case _:
            told = "; ".join(line.strip() for line in event_lines(event))
    line = " ".join(told.split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]} ..."
