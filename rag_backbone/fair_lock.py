"""A lock that is taken in the order of asking.

Python's own lock goes to whoever happens to run next, which is nearly always the thread that has just released it: one
that decodes token after token would keep a new prompt waiting for the whole of its text.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turn(threading.Event):
    """A place in the queue; set when it is over, in the one way or the other."""

    withdrawn = False
    """Whether what the turn was for has been done by a holder of the lock."""


class FairLock:
    """First come, first served. Not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[Turn] = deque()

    def __enter__(self) -> None:
        self.take(Turn())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def take(self, turn: Turn) -> bool:
        """Take the lock, if need be after everybody who asked before; false if the turn was withdrawn meanwhile."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # interrupted while waiting: the turn must not be lost
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            if not turn.withdrawn:
                self.release()
            raise
        return not turn.withdrawn

    def withdraw(self, turn: Turn) -> bool:
        """Take a turn out of the queue, if it is there. Its thread goes on waiting until the turn is set.

        For the holder of the lock, who does meanwhile what the turn was for.
        """
        with self._guard:
            if turn not in self._waiting:
                return False
            self._waiting.remove(turn)
            turn.withdrawn = True
            return True

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

    def release(self) -> None:
        """Hand the lock to who asked next."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
