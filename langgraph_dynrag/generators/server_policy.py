"""How a model in a server is asked: how an answer is continued, how often and after what pause a request is repeated.

The `openai` client below has retries of its own (`ChatOpenAI(max_retries=...)`), for requests that were not accepted;
it honours `Retry-After`. What is here comes on top: answers that broke off, and servers that take longer to come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tenacity import RetryCallState, retry_if_exception, wait_exponential, wait_random

from rag_backbone.checks import known_arguments
from rag_backbone.errors import ConfigurationError
from rag_backbone.openai_errors import failure_of
from rag_backbone.typed_fields import Bounds, check_fields

ContinuationMode = Literal["flags", "last_message", "ask_again"]
"""How an answer in progress goes on: `flags` (vLLM's and SGLang's `continue_final_message`), `last_message` (servers
that always continue a last message of the assistant, as llama.cpp's does), or `ask_again` (with the text so far in the
question; every server can)."""

Continuing = Literal["auto", "flags", "last_message", "ask_again"]
"""One of these, or `auto`: whichever the server is found to do when the first answer has to be continued."""


@known_arguments
@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server and its model can do, said by those who know it, so that nothing is asked.

    Raises:
        ConfigurationError: If a value is of another type, out of range, or unknown.
    """

    logprobs: bool = True
    """Whether log-probabilities are reported."""
    alternatives: Annotated[int, Bounds(least=0)] = 20
    """Likeliest tokens that are reported with each token; 0: no entropy can be read."""
    continuing: ContinuationMode = "ask_again"
    context_window: Annotated[int | None, Bounds(least=1)] = None
    """Tokens of prompt and answer; None: not known, so that prompts are not shortened to fit."""
    opens_reasoning: bool | None = None
    """Whether replies begin within a block of reasoning that the chat template opens; None: seen by the first reply."""

    def __post_init__(self) -> None:
        check_fields(self)


@known_arguments
@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """How the graph deals with a model behind an OpenAI-compatible endpoint.

    Raises:
        ConfigurationError: If a value is of another type, out of range, or unknown.
    """

    continuing: Continuing = "auto"
    attempts: Annotated[int, Bounds(least=1)] = 4
    """How often one draft is asked for; what a broken attempt has written stays and is gone on from."""
    first_wait: Annotated[float, Bounds(above=0)] = 0.5
    """Seconds before the second attempt; doubled, with some chance, before each further one."""
    longest_wait: Annotated[float, Bounds(above=0, infinite=True)] = 60.0
    """Seconds: a server that asks for more (`Retry-After`) is given up at once."""
    failures: Annotated[int, Bounds(least=1)] = 5
    """Requests that failed in a row after which the server is left alone for `pause` seconds."""
    pause: Annotated[float, Bounds(above=0)] = 30.0
    alternatives: Annotated[int, Bounds(least=1)] = 20
    """Likeliest tokens that are asked for where a trigger reads entropy: the more, the closer its lower bound."""
    capabilities: Capabilities | None = None
    """What the server can do; None: it is asked, as far as a graph needs to know."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.capabilities is not None and self.continuing not in ("auto", self.capabilities.continuing):
            raise ConfigurationError(
                f"continuing is {self.continuing!r}, and capabilities say {self.capabilities.continuing!r}; give one"
            )

    def rules(self, may_pass: Callable[[BaseException], bool] | None = None, *, deadline: float = float("inf")) -> Any:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`.

        Args:
            may_pass: Which errors are worth another attempt; None: those of the server that may pass.
            deadline: On `time.monotonic`'s clock; pauses end with it, and what fails then is not repeated.
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
    """Whether the same request may succeed later."""
    failure = failure_of(error)
    return failure is not None and failure.passing


def _error(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
