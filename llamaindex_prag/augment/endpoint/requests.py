"""Ask a model behind an endpoint many prompts, some at once, with retries.

    no connection, rate limit, server error    asked again after a pause, or when the server says
    wrong key, no credit, unknown model        raised: no prompt would fare better
    anything else                              the error is returned in place of the reply

Knows nothing of questions.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from llamaindex_prag.augment.completion import CalledCompleter, CompletionResult, Prompt
from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.openai_errors import failure_of, garbled, pause_before

_TO_CHECK = {401: "the API key", 402: "the account's credit", 404: "the model's name and the address"}
"""What to check if no request can succeed, by HTTP status. A 403 may concern a single prompt (moderation)."""


@dataclass(frozen=True)
class _Raised:
    """What a thread raised."""

    error: BaseException


@dataclass(frozen=True)
class Endpoint:
    """A model that is asked over a network."""

    completer: CalledCompleter
    name: str
    """The model's name in messages."""
    concurrency: int
    """Maximum number of requests at the same time."""
    attempts: int
    """Maximum number of requests for one prompt."""
    longest_wait: float
    """Longest pause in seconds; if the server asks for more, the prompt fails at once."""

    def replies(self, prompts: Sequence[str]) -> Generator[tuple[int, CompletionResult], None, None]:
        """Yield the number of a prompt and its reply, or the error of its last attempt, as they arrive.

        Raises:
            ConfigurationError: If the endpoint refuses the key or the model. Prompts not yet sent are not sent.
        """
        if not prompts:
            return
        stopped, arrived = threading.Event(), SimpleQueue[tuple[int, CompletionResult | _Raised]]()

        def ask(number: int) -> None:
            if stopped.is_set():
                return
            try:
                arrived.put((number, self._asked(prompts[number], stopped)))
            except BaseException as error:  # noqa: BLE001 - raised where the replies are read
                arrived.put((number, _Raised(error)))
                stopped.set()

        pool = ThreadPoolExecutor(min(self.concurrency, len(prompts)), thread_name_prefix="questions")
        try:
            for number in range(len(prompts)):
                pool.submit(contextvars.copy_context().run, ask, number)  # so that tracers see who asked
            for _ in prompts:
                number, reply = arrived.get()
                if isinstance(reply, _Raised):
                    raise reply.error
                yield number, reply
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)

    def _asked(self, prompt: str, stopped: threading.Event) -> CompletionResult:
        attempt = 1
        while True:
            (reply,) = self.completer.complete([Prompt(prompt, 0)])
            if isinstance(reply, str):
                return reply
            self._refuse_setup(reply)
            failure = failure_of(garbled(reply))
            if failure is None:
                return reply
            attempt += 1
            pause = pause_before(attempt, failure, longest=self.longest_wait)
            if not failure.passing or attempt > self.attempts or pause is None or stopped.wait(pause):
                return failure.explained(self.name)

    def _refuse_setup(self, error: Exception) -> None:
        if isinstance(error, ConfigurationError):
            raise error
        failure = failure_of(error)
        if failure is None:
            return
        without_credit = getattr(error, "code", None) == "insufficient_quota"  # OpenAI's 429 that does not pass
        to_check = _TO_CHECK[402] if without_credit else _TO_CHECK.get(failure.status or 0)
        if to_check is not None:
            raise ConfigurationError(
                f"{self.name} refuses every request (HTTP {failure.status}), so no questions can be written: check "
                f"{to_check}. {type(error).__name__}: {error}"
            ) from error


def no_reply(name: str, documents: int, last: Exception) -> ServerError:
    """Return the error to raise if a model answered nothing about several documents in a row."""
    kind = type(last) if isinstance(last, ServerError) else ServerError
    told = str(last) if isinstance(last, ServerError) else f"{type(last).__name__}: {last}"
    return kind(
        f"{name} answered nothing about {documents} documents in a row, so they are not left to the rules; what is "
        f"stored is kept, and the same call continues from there. {told}"
    )
