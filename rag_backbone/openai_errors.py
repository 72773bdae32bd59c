"""Classifies failed requests to an OpenAI-compatible server, and whether a retry can help.

    passing    no connection, a time-out, HTTP 408, 409, 425, 429 or 5xx, an error event, half a stream, garbage
    lasting    the request itself is refused: HTTP 400, 401, 403, 404, 413, 422

Errors are recognised by their content (a status, response headers) and by the class names that the `openai` client and
LangChain use; neither is imported.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag_backbone.errors import DynPragError, ServerError, ServerUnavailableError

_PASSING = {408, 409, 425, 429}
_GARBAGE = (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, AttributeError, ValueError)


class BrokenStreamError(ServerError):
    """A stream ended before the answer did."""


class GarbledStreamError(ServerError):
    """A server sent a response that violates the protocol."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    error: BaseException
    status: int | None
    """HTTP status; None if there was no response, or it broke off."""
    passing: bool
    """Whether the same request may succeed later."""
    retry_after: float | None = None
    """Seconds to wait before the next request, if the server asks for that."""

    @property
    def unknown_model(self) -> bool:
        """Whether the server has no model of the requested name."""
        return self.status == 404

    @property
    def brief(self) -> str:
        """The HTTP status or the type of the error."""
        return f"HTTP {self.status}" if self.status is not None else type(self.error).__name__

    def explained(self, server: str) -> ServerError:
        """Return the error to raise to the caller."""
        told = f"{type(self.error).__name__}: {self.error}"
        if self.status == 429:
            later = "" if self.retry_after is None else f"; it asks to wait {self.retry_after:g} s"
            return ServerUnavailableError(f"{server} does not accept more requests for now (HTTP 429){later}. {told}")
        if self.passing and isinstance(self.error, ServerError):
            return type(self.error)(f"{server}: {self.error}")
        if self.passing:
            return ServerUnavailableError(f"{server} could not answer: {told}")
        return ServerError(f"{server} refused the request (HTTP {self.status}): {told}")


def failure_of(error: BaseException) -> Failure | None:
    """Return what an exception of a request means; None if it was not caused by the server."""
    if isinstance(error, BrokenStreamError | GarbledStreamError):
        return Failure(error, None, passing=True)
    if isinstance(error, DynPragError):
        return None
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)  # httpx has the second only
    if isinstance(status, int):
        headers = getattr(response, "headers", None) or {}
        return Failure(error, status, status in _PASSING or status >= 500, retry_after(headers))
    kinds = {kind.__name__ for kind in type(error).__mro__}
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if kinds & {"APIError", "APIConnectionError", "StreamChunkTimeoutError"} or modules & {
        "httpx",
        "httpx2",
        "httpcore",
    }:
        return Failure(error, None, passing=True)
    return Failure(error, None, passing=True) if isinstance(error, OSError) else None


def garbled(error: Exception) -> Exception:
    """Return `GarbledStreamError` for an exception in the client's parsing of a response; other errors unchanged."""
    if failure_of(error) is None and not isinstance(error, DynPragError) and isinstance(error, _GARBAGE):
        return GarbledStreamError(f"the response violates the protocol ({type(error).__name__}: {error})")
    return error


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Return how many seconds a response asks to wait (RFC 9110, section 10.2.3), given as a number or a date."""
    value = str(headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def pause_before(attempt: int, failure: Failure, *, longest: float = 60.0) -> float | None:
    """Return the seconds to wait before attempt number `attempt`; None if the server asks for more than `longest`.

    Attempt 2 is the first repetition.
    """
    pause = 0.5 * 2.0 ** (attempt - 2) if failure.retry_after is None else failure.retry_after
    return pause if pause <= longest else None
