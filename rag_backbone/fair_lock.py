"""A lock that is taken in the order of asking.

Python's own lock goes to whoever happens to run next, which is nearly always the thread that has just released it: one
that decodes token after token would keep a new prompt waiting for the whole of its text.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """First come, first served. Not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # interrupted while waiting: the turn must not be lost
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self._release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def take_if_free(self) -> bool:
        """Take the lock if that needs no waiting at all; leave it as after `with`.

        Never blocks, not even where the garbage collector calls it in the middle of this very lock's code.
        """
        if not self._guard.acquire(blocking=False):
            return False
        try:
            taken, self._held = not self._held, True
            return taken
        finally:
            self._guard.release()

    def _release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
