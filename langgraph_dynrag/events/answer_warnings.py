"""What a reader of an answer should be told about how it came about, made from the events of its trace.

An event that the user should not have to look for carries a `warning` in words. Failed searches are counted by error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from langgraph_dynrag.events.events import Event, RetrievalEvent, events_of


def answer_warnings(events: Iterable[Event]) -> list[str]:
    """Return the warnings of a run, each once, with its number of occurrences."""
    known = list(events)
    searches = events_of(known, RetrievalEvent)
    errors = Counter(event["error"] for event in searches if event["error"])
    failed = [
        f"{count} of {len(searches)} searches failed, and the answer was written without them: {error}"
        for error, count in errors.items()
    ]
    others = Counter(str(warning) for event in known if (warning := event.get("warning")))
    return failed + [text if count == 1 else f"{text} ({count} times)" for text, count in others.items()]
