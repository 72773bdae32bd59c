"""Stop sending requests to a server that keeps failing.

    closed --(several failures in a row)--> open --(after a pause)--> one request on trial --(success)--> closed
                                             ^                                  |
                                             +-------------(failure)------------+

Failures count as consecutive only if each request began after the previous one had failed: an outage that breaks many
requests at once is one failure, and each of them may try again.

The module knows neither HTTP nor models. Existing libraries decorate functions and cannot guard a partially read
stream, sync or async.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rag_backbone.checks import clause
from rag_backbone.errors import ConfigurationError, ServerUnavailableError


class CircuitBreaker:
    """Circuit breaker for one server; thread-safe, and tasks may share it too.

    Args:
        what: Name of the server in messages.
        failures: Number of consecutive failures that open the breaker.
        pause: Seconds until a request is tried again.
        clock: Monotonic clock in seconds.

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
        """Number of failures counted so far; tells a request whether there was one since it began."""
        self._closed_at = 0.0
        self._last = ""
        self._lock = threading.Lock()

    def check(self) -> int:
        """Admit a request or refuse it.

        Returns:
            A mark of when the request began, to pass to `failed`.

        Raises:
            ServerUnavailableError: If the breaker is open; the message says for how much longer.
        """
        with self._lock:
            left = self._closed_at - self._clock()
            if self._failed < self._limit:
                return self._counted
            if left > 0:
                raise ServerUnavailableError(
                    f"{self._what} failed {self._failed} times in a row, the last time with: {clause(self._last)}. "
                    f"The next request is allowed in {left:.0f} s."
                )
            self._closed_at = self._clock() + self._pause  # this request is the trial; others wait for its outcome
            return self._counted

    def succeeded(self) -> None:
        """Record that a request was answered, even if only with a refusal."""
        with self._lock:
            self._failed = 0

    def failed(self, error: BaseException, began: int) -> None:
        """Record that a request admitted by `check` could not reach the server or was not fulfilled."""
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
