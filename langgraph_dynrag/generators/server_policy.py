"""Configure requests to a model server: how answers are continued, and how often and when requests are retried.

The underlying `openai` client has its own retries (`ChatOpenAI(max_retries=...)`) for requests that were not accepted,
and honours `Retry-After`. The retries configured here come on top, for streams that broke off and servers that are
unavailable for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tenacity import RetryCallState, retry_if_exception, wait_exponential, wait_random

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.generators.hidden_state_server import HiddenStateServer
from rag_backbone.checks import known_arguments
from rag_backbone.errors import ConfigurationError
from rag_backbone.openai_errors import failure_of
from rag_backbone.typed_fields import Bounds, check_fields

SERVER_STATES: frozenset[Signal] = frozenset({"end_states", "hidden_states"})
"""Signals that `ServerPolicy(states=...)` adds."""

ContinuationMode = Literal["flags", "last_message", "ask_again"]
"""How an answer in progress is continued: `flags` (`continue_final_message` of vLLM and SGLang), `last_message`
(servers such as llama.cpp's that always continue a last message of the assistant), or `ask_again` (with the text so far
in the question; works with every server)."""

Continuing = Literal["auto", "flags", "last_message", "ask_again"]
"""A `ContinuationMode`, or `auto` to find out which one the server supports when the first answer is continued."""


@known_arguments
@dataclass(frozen=True, slots=True)
class Capabilities:
    """Known capabilities of a server and its model, given so that the server is not probed.

    Raises:
        ConfigurationError: If a value is of another type, out of range, or unknown.
    """

    logprobs: bool = True
    """Whether log-probabilities are reported."""
    alternatives: Annotated[int, Bounds(least=0)] = 20
    """Number of top alternatives reported with each token; with 0, entropy is not available."""
    continuing: ContinuationMode = "ask_again"
    context_window: Annotated[int | None, Bounds(least=1)] = None
    """Maximum tokens of prompt and answer together; None: unknown, so prompts are not shortened to fit."""
    opens_reasoning: bool | None = None
    """Whether replies begin inside a reasoning block opened by the chat template; None: detected from the first
    reply."""

    def __post_init__(self) -> None:
        check_fields(self)


@known_arguments
@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """How the graph treats a model behind an OpenAI-compatible endpoint.

    Raises:
        ConfigurationError: If a value is of another type, out of range, or unknown.
    """

    continuing: Continuing = "auto"
    attempts: Annotated[int, Bounds(least=1)] = 4
    """Maximum number of requests for one draft; text written by a failed attempt is kept and continued."""
    first_wait: Annotated[float, Bounds(above=0)] = 0.5
    """Seconds before the second attempt; doubled before each further one, with random jitter."""
    longest_wait: Annotated[float, Bounds(above=0, infinite=True)] = 60.0
    """Longest pause in seconds; if a server asks for more (`Retry-After`), the request fails at once."""
    failures: Annotated[int, Bounds(least=1)] = 5
    """Number of consecutive failed requests after which no request is sent for `pause` seconds."""
    pause: Annotated[float, Bounds(above=0)] = 30.0
    alternatives: Annotated[int, Bounds(least=1)] = 20
    """Number of top alternatives to request if a trigger reads entropy; more of them tighten its lower bound."""
    capabilities: Capabilities | None = None
    """Capabilities of the server; None: the server is probed for what the graph needs."""
    states: HiddenStateServer | None = None
    """Where hidden states of the chat server's model come from; None: it gives none."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.capabilities is not None and self.continuing not in ("auto", self.capabilities.continuing):
            raise ConfigurationError(
                f"continuing is {self.continuing!r}, but capabilities say {self.capabilities.continuing!r}; give one"
            )

    def rules(self, may_pass: Callable[[BaseException], bool] | None = None, *, deadline: float = float("inf")) -> Any:
        """Return arguments for tenacity's `Retrying` and `AsyncRetrying`.

        Args:
            may_pass: Decides which errors are retried; None: transient server errors.
            deadline: Deadline on the clock of `time.monotonic`; pauses end there, and later failures are not retried.
        """
        backoff = wait_exponential(self.first_wait, self.longest_wait) + wait_random(0, self.first_wait)

        def wait(state: RetryCallState) -> float:
            failure = failure_of(_error(state))
            asked = None if failure is None else failure.retry_after
            pause = min(float(backoff(state)), self.longest_wait) if asked is None else asked
            return pause if pause > self.longest_wait else max(0.0, min(pause, deadline - time.monotonic()))

        def stop(state: RetryCallState) -> bool:
            too_long = state.upcoming_sleep > self.longest_wait
            return state.attempt_number >= self.attempts or too_long or time.monotonic() >= deadline

        return {"wait": wait, "stop": stop, "retry": retry_if_exception(may_pass or passing), "reraise": True}


def passing(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    failure = failure_of(error)
    return failure is not None and failure.passing


def _error(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
