"""How many generations are under way at once.

Each holds keys and values from its first forward on, and whoever asks is served in the order of asking, so without a
bound the prompts of five hundred sessions would all be read before any of them had its second token. Generations beyond
those that share a step wait before their first forward, when they hold nothing yet.

A stream that nobody reads at the moment must not keep others out, so it does not count, nor does one that is read by
the very thread that waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from rag_backbone.row import Row

_IDLE = 0.5
"""Seconds after its last token from which a row counts as one that nobody reads."""
_LOOK = 0.02
"""Seconds after which whoever is next looks again whether there is room."""


class Admission:
    """Lets so many generations of several threads take steps at a time; the others wait, first come, first served.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._queue: deque[Row] = deque()
        self._admitted: WeakSet[Row] = WeakSet()

    @contextlib.contextmanager
    def step(self, row: Row) -> Iterator[None]:
        """While the row's next token is computed; before its first one it waits for room."""
        if row not in self._admitted:
            self._wait(row)
        row.thread, row.in_step = threading.current_thread(), True
        try:
            yield
        finally:
            row.left_at, row.in_step = time.monotonic(), False

    def _wait(self, row: Row) -> None:
        with self._changed:
            self._queue.append(row)
            try:
                while row.finish_reason is None:  # else it was left while it waited
                    if self._queue[0] is not row:
                        self._changed.wait()
                    elif self._is_full():
                        self._changed.wait(_LOOK)
                    else:
                        break
                row.in_step = True
                self._admitted.add(row)
            finally:
                self._queue.remove(row)
                self._changed.notify_all()

    def _is_full(self) -> bool:
        here, since = threading.current_thread(), time.monotonic() - _IDLE
        under_way = (
            row for row in self._admitted
            if row.finish_reason is None and row.thread is not here and (row.in_step or row.left_at > since)
        )  # fmt: skip
        return sum(1 for _ in under_way) >= self._most
