"""Events that end in a line or two of a trace to read; the others are told where the trace is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_dynrag.reflection.trace_lines import trace_lines


def event_lines(event: Mapping[str, Any]) -> list[str]:
    """The lines of an event; none of one that this module does not know."""
    if event["type"] == "final_answer":
        return _final_answer(event)
    if event["type"] == "digest":
        told = f"inserted as found: {event['problem']}" if event["text"] is None else f"condensed: {event['text']}"
        return [f"    {told}"]
    if event["type"] == "condensed":
        taken = f"taken as it is: {event['problem']}" if event["problem"] else f"condensed to: {event['question']}"
        lines = [f"  asked with {event['turns']} earlier turns: {event['asked']}", f"    {taken}"]
        return lines + ([f"    {event['left_out']} turns did not fit"] if event["left_out"] else [])
    if event["type"] == "not_text":
        return [f"  {event['warning']}"]
    if event["type"] == "reasoning":
        return [f"  reasoned ({event['tokens']} tokens): {_short(event['text']) or 'the text was not passed on'}"]
    if event["type"] == "repetition":
        return [f"  left out, as it repeats the text before: {_short(event['text'])}"]
    if event["type"] == "no_text":
        return [f"  a reply brought no new text ({event['problem']}): {event['outcome']}"]
    return trace_lines(event)


def _short(text: str, characters: int = 300) -> str:
    """A text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[:characters]} [{len(line) - characters} more characters]"


def _final_answer(event: Mapping[str, Any]) -> list[str]:
    lines = [f"  answer from the {c['basis']}: {c['short_answer']!r}, {_score(c)}" for c in event["candidates"]]
    which = "the answer stays as it was written" if event["taken"] == "written" else f"taken from the {event['taken']}"
    return [*lines, f"  {which}: {event['reason']}"]


def _score(candidate: Mapping[str, Any]) -> str:
    value = candidate["uncertainty"]
    return "every sample empty" if value is None else f"uncertainty {value:.3f}"
