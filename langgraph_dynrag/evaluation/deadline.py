"""A limit on the time of a long run, after which it stops between two questions."""

from __future__ import annotations

import threading
import time


class Deadline:
    """The time at which a run should stop.

    Args:
        minutes: Minutes from now.
    """

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the deadline pass now."""
        self._stopped.set()

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self._stopped.is_set() or time.monotonic() >= self._end
