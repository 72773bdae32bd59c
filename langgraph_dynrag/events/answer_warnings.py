"""Warnings for the reader of an answer, collected from the events of its trace.

An event that users should notice carries a `warning` text. Failed searches are counted by error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from langgraph_dynrag.events.events import Event, RetrievalEvent, events_of


def answer_warnings(events: Iterable[Event]) -> list[str]:
    """Return each distinct warning of a run once, with its number of occurrences."""
    known = list(events)
    searches = events_of(known, RetrievalEvent)
    errors = Counter(error for event in searches if (error := event.get("error")))
    failed = [
        f"{count} of {len(searches)} searches failed, and the answer was written without them: {error}"
        for error, count in errors.items()
    ]
    others = Counter(str(warning) for event in known if (warning := event.get("warning")))
    return failed + [text if count == 1 else f"{text} ({count} times)" for text, count in others.items()]
