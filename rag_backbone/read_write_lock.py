"""A lock that many readers or one writer can hold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class ReadWriteLock:
    """A readers-writer lock that prefers writers, so that readers cannot starve them.

    The write lock (`alone`) is reentrant; the read lock (`shared`) is not.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone: int | None = None
        self._waiting = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            while self._waiting or self._alone is not None:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock exclusively."""
        if self._alone == threading.get_ident():
            yield
            return
        with self._changed:
            self._waiting += 1
            try:
                while self._inside or self._alone is not None:
                    self._changed.wait()
                self._alone = threading.get_ident()
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = None
                self._changed.notify_all()
