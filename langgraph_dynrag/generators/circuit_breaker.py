"""Stops asking a server that keeps failing, so that neither it nor the caller is kept busy with requests in vain.

    closed --(several failures in a row)--> open --(after a pause)--> one request on trial --(success)--> closed
                                             ^                                  |
                                             +-------------(failure)------------+

Failures are in a row only if each request began after the one before it had failed: what takes down many requests at
once is one failure, and each of them may try again.

Knows neither HTTP nor models. The well-kept libraries decorate functions, and cannot stand around a stream that is left
half-read, synchronously and asynchronously.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rag_backbone.checks import clause
from rag_backbone.errors import ConfigurationError, ServerUnavailableError


class CircuitBreaker:
    """One for each server; threads and tasks may share it.

    Args:
        what: Names the server in messages.
        failures: How many in a row open it.
        pause: Seconds until a request is tried again.
        clock: Seconds that only grow.

    Raises:
        ConfigurationError: If a number is not positive.
    """

    def __init__(
        self, what: str, *, failures: int = 5, pause: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if failures < 1 or not pause > 0:
            raise ConfigurationError(f"failures is {failures}, pause is {pause}; both must be above 0")
        self._what, self._limit, self._pause, self._clock = what, failures, pause, clock
        self._failed = 0
        self._counted = 0
        """All failures that were counted, by which a request knows whether there was one since it began."""
        self._closed_at = 0.0
        self._last = ""
        self._lock = threading.Lock()

    def check(self) -> int:
        """Let a request pass, or refuse it.

        Returns:
            When it began, for `failed`.

        Raises:
            ServerUnavailableError: While it is open, telling for how long yet.
        """
        with self._lock:
            left = self._closed_at - self._clock()
            if self._failed < self._limit:
                return self._counted
            if left > 0:
                raise ServerUnavailableError(
                    f"{self._what} failed {self._failed} times in a row, the last time with: {clause(self._last)}. "
                    f"It is asked again in {left:.0f} s."
                )
            self._closed_at = self._clock() + self._pause  # this one is the trial; the others wait for its outcome
            return self._counted

    def succeeded(self) -> None:
        """A request was answered, if only with a refusal."""
        with self._lock:
            self._failed = 0

    def failed(self, error: BaseException, began: int) -> None:
        """The server could not be reached, or did not do its work, for a request that `check` let pass."""
        with self._lock:
            if began < self._counted:
                return
            self._counted += 1
            self._failed += 1
            self._last = f"{type(error).__name__}: {error}"
            if self._failed >= self._limit:
                self._closed_at = self._clock() + self._pause

    def __repr__(self) -> str:
        return f"CircuitBreaker({self._what!r}, {self._failed} of {self._limit} failures)"
