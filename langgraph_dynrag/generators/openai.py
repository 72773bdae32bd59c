"""Drive a model behind an OpenAI-compatible API through `langchain-openai`.

A server that can *continue* an answer in progress does so, and nothing is written twice; others are asked again with
the accepted text. A stream that breaks off is continued from where it broke. The task says which adapters are active.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from tenacity import AsyncRetrying, Retrying

from langgraph_dynrag.drafts.draft import Draft, Floats, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken
from langgraph_dynrag.drafts.token_alignment import Seam
from langgraph_dynrag.generators.attempts import Attempts
from langgraph_dynrag.generators.chat import ChatGenerator, retried, unstreamed
from langgraph_dynrag.generators.circuit_breaker import CircuitBreaker
from langgraph_dynrag.generators.endpoint import CONTINUE, Endpoint, reading
from langgraph_dynrag.generators.served_states import ServedStates
from langgraph_dynrag.generators.server_policy import SERVER_STATES, ServerPolicy, passing
from langgraph_dynrag.generators.wrapped_models import PlainModel, plain_models
from rag_backbone.aio import in_own_thread
from rag_backbone.errors import ServerUnavailableError
from rag_backbone.openai_errors import BrokenStreamError, Failure, failure_of

if TYPE_CHECKING:
    from langchain_openai.chat_models.base import BaseChatOpenAI

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_TOO_MANY = 429


@runtime_checkable
class RequestAdapters(Protocol):
    """Adapters in the server, which a request's options activate."""

    def request_options(self) -> AbstractContextManager[dict[str, Any]]:
        """Yield the options; the adapters stay loaded in the server while the context is open. May take long."""

    def lost(self) -> None:
        """Record that the server no longer knows the adapters."""


class OpenAIGenerator(ChatGenerator):
    """A `ChatOpenAI` or a subclass of its base class, with the capabilities of its server.

    Args:
        model: The chat model and its wrappers.
        endpoint: The server's known capabilities.
        signals: Signals that the server gives.
        policy: Retries, pauses, and the number of alternatives to request.
    """

    chat: BaseChatOpenAI

    def __init__(self, model: PlainModel, endpoint: Endpoint, signals: frozenset[Signal], policy: ServerPolicy) -> None:
        super().__init__(model, signals, top_logprobs=endpoint.alternatives)
        self.endpoint = endpoint
        self.policy = policy
        self.breaker = CircuitBreaker(endpoint.name, failures=self.policy.failures, pause=self.policy.pause)
        self._states = None if policy.states is None else ServedStates(self.chat, endpoint, policy.states)
        self.asks_usage = self.chat.stream_usage is not False
        """Whether to request the usage of streams; False once the server has refused that."""

    @classmethod
    def of(
        cls,
        model: Runnable[LanguageModelInput, AIMessage] | PlainModel,
        needs: frozenset[Signal],
        policy: ServerPolicy | None = None,
        *,
        assumed: bool = False,
    ) -> OpenAIGenerator:
        """Create a generator after checking that the server gives the needed signals.

        Args:
            model: A `ChatOpenAI` or similar, wrapped or not.
            needs: The needed signals.
            policy: None for the defaults, with the number of attempts of `with_retry` if the model has that wrapper.
            assumed: Whether to assume that a server which cannot be reached now gives the signals.

        Raises:
            DynPragError: As raised by `Endpoint.require`.
        """
        plain = model if isinstance(model, PlainModel) else plain_models(model)[0]
        if policy is None:
            tries = plain.retry.max_attempt_number if plain.retry is not None else ServerPolicy().attempts
            policy = ServerPolicy(attempts=tries)
        endpoint = Endpoint(plain.chat, policy, plain.bound)
        try:
            signals = endpoint.require(needs)
        except ServerUnavailableError as error:
            if not assumed:
                raise
            signals = endpoint.assume(needs)
            logger.warning("%s; assuming that it gives %s", error, ", ".join(sorted(signals)))
        if policy.states is not None and needs & SERVER_STATES:
            policy.states.check()
            signals |= SERVER_STATES
        return cls(plain, endpoint, signals, policy)

    @property
    def context_window(self) -> int | None:
        """Context window that the server reports (requested on first use), or else that of the model's profile."""
        return self.endpoint.context_window or super().context_window

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether replies of the endpoint begin inside a reasoning block; None if not known yet."""
        return self.endpoint.opens_reasoning

    def note_reasoning(self, opens: bool) -> None:
        """Record whether replies begin inside a reasoning block, for all users of this endpoint."""
        self.endpoint.note_reasoning(opens)

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Continue the answer until the unit is complete, then close the stream."""
        work = _Work(self, task, on_token)
        try:
            for trial in Retrying(**work.rules):
                with trial, work.watched():
                    work.begin()
                    with work.model() as options:
                        stream = self.calls.stream(work.messages, unstreamed(config), **options)
                        with contextlib.closing(_Read(stream)) as chunks:
                            for chunk in chunks:
                                if work.push(chunk):
                                    break
                            work.check_end()
        except Exception as error:  # noqa: BLE001 - `give_up` decides what to raise
            work.give_up(error)
        return work.result()

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Continue the answer until the unit is complete, then close the stream."""
        work = _Work(self, task, on_token)
        try:
            async for trial in AsyncRetrying(**work.rules):
                with trial, work.watched():
                    if work.continues and not self.endpoint.knows_way:
                        await in_own_thread(lambda: self.endpoint.way)
                    work.begin()
                    async with _in_thread(work.model()) as options:
                        stream = self.calls.astream(work.messages, unstreamed(config), **options)
                        async with contextlib.aclosing(_aread(stream)) as chunks:
                            async for chunk in chunks:
                                if work.push(chunk):
                                    break
                            work.check_end()
        except Exception as error:  # noqa: BLE001 - `give_up` decides what to raise
            work.give_up(error)
        return work.result()

    def hidden_states(self, task: DraftTask, unit: Draft, depths: Sequence[float]) -> Floats:
        """Return the states of a draft's tokens from the policy's hidden-state server."""
        if (states := self._states) is None:
            return super().hidden_states(task, unit, depths)
        return self._sent(lambda: states.hidden_states(task, unit, depths))

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """Sample continuations in the server; their states are from the policy's hidden-state server."""
        if (states := self._states) is None:
            return super().sample_ends(task, spec, seed)
        return self._sent(lambda: states.sample_ends(task, spec, seed))

    def _sent(self, request: Callable[[], _T]) -> _T:
        """Send a request with the policy's retries."""

        def once() -> _T:
            with self.watched(), reading():
                return request()

        with self._explained():
            return Retrying(**self.policy.rules())(once)

    async def _asent(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Send a request with the policy's retries, asynchronously."""

        async def once() -> _T:
            with self.watched(), reading():
                return await request()

        with self._explained():
            return await retried(self.policy.rules(), once)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Guard one request with the circuit breaker: refuse it while the breaker is open, and count its outcome."""
        began = self.breaker.check()
        try:
            yield
        except Exception as error:
            failure = failure_of(error)
            if failure is not None and failure.passing and failure.status != _TOO_MANY:
                self.breaker.failed(error, began)
            elif failure is not None:  # a rate limit is an answer too, and says itself when to retry
                self.breaker.succeeded()
            raise
        self.breaker.succeeded()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            raise self.endpoint.explained(error, failure) from error

    def continued(self, task: DraftTask) -> tuple[list[BaseMessage], dict[str, Any], Seam]:
        """Continue the last message if the server can, or ask again; may first send requests to find out which."""
        written = task.accepted + task.carried.text
        if not written.strip() or (way := self.endpoint.way) == "ask_again":
            return self._messages(task), {}, Seam(written if written.strip() else "", "answers")
        # Chat templates strip messages, so the model cannot see trailing whitespace.
        messages = [*task.messages, AIMessage(written.rstrip())]
        extra = {"extra_body": {**self.endpoint.extra_body, **CONTINUE}} if way == "flags" else {}
        return messages, extra, Seam(written, "continues")

    def __repr__(self) -> str:
        alternatives = f", {self.endpoint.alternatives} alternatives" if self.endpoint.alternatives else ""
        way = f", {self.endpoint.way}" if self.endpoint.knows_way else ""
        return f"OpenAIGenerator({self.endpoint.model!r}{way}{alternatives})"


class _Work(Attempts):
    """One draft: the code shared by the sync and async loops."""

    def __init__(self, generator: OpenAIGenerator, task: DraftTask, on_token: OnToken | None) -> None:
        super().__init__(generator, task, on_token)
        self._generator = generator
        self._reloads = 0
        self._fewer = 0
        self._usage_refused = False

    @property
    def rules(self) -> dict[str, Any]:
        """Retry rules of the attempts; a request refused because it asks for usage does not count."""
        rules = dict(self._generator.policy.rules(self._may_pass, deadline=self._whole.deadline))
        stop = rules["stop"]
        return {**rules, "stop": lambda state: not self._usage_refused and stop(state)}

    @contextlib.contextmanager
    def model(self) -> Iterator[dict[str, Any]]:
        """Yield the options of a request; if adapters are active, they are loaded and the options name them."""
        options = {**self._generator._options(self.task), **self.extra}  # noqa: SLF001 - same module
        if self._generator.asks_usage:
            options["stream_usage"] = True
        adapters = self._whole.adapters
        if adapters is None:
            yield options
            return
        assert isinstance(adapters, RequestAdapters)
        with adapters.request_options() as given:
            yield self._generator.endpoint.joined(options, given)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch one attempt; what it wrote before it failed is kept."""
        self._requests += 1
        self._usage_refused = False
        try:
            with self._generator.watched():
                yield
        except Exception as error:
            failure = failure_of(error)
            if self._generator.asks_usage and refuses_usage(error, failure):
                self._generator.asks_usage = False
                self._usage_refused = True
                self._requests -= 1
            elif failure is not None:
                self._failures.append(failure.brief)
                logger.warning(
                    "%s: attempt %d failed (%s)", self._generator.endpoint.name, self._requests, failure.brief
                )
            if failure is not None and failure.unknown_model and self._whole.adapters is not None:
                self._whole.adapters.lost()
                self._reloads += 1
            if failure is None or not failure.passing or not self.keep():
                raise

    def push(self, chunk: Any) -> bool:
        """Add a chunk and return whether the draft is complete."""
        if self._generator.endpoint.alternatives and "entropy" in self.task.needs:
            entries = (chunk.response_metadata.get("logprobs") or {}).get("content") or []
            least = self._generator.endpoint.alternatives
            self._fewer += sum(1 for e in entries if len(e.get("top_logprobs") or []) < least)
        return super().push(chunk)

    def check_end(self) -> None:
        """Raise if a stream ended without a finish reason, which means that the connection broke."""
        if self._rule.ended is None and self._collector.finish_reason is None:
            raise BrokenStreamError("the stream ended without a finish reason")

    def give_up(self, error: Exception) -> None:
        """Raise the error of the last attempt, unless the deadline has passed."""
        failure = failure_of(error)
        if failure is None:
            raise error
        if failure.passing and time.monotonic() >= self._whole.deadline:
            self._rule.ended = "deadline"
            return
        raise self._explained(error, failure) from error

    def _explained(self, error: Exception, failure: Failure) -> Exception:
        # The name under which an adapter was loaded is not a model name that the user chose.
        endpoint = self._generator.endpoint
        named = self._whole.adapters is not None
        return failure.explained(endpoint.name) if named else endpoint.explained(error, failure)

    def result(self) -> DraftResult:
        """Return the whole draft and its cost."""
        found = super().result()
        cost = found.cost.copy()
        if self._fewer:
            cost["fewer_alternatives"] = self._fewer
        if self._reloads:
            cost["adapters_reloaded"] = self._reloads
        return replace(found, cost=cost)

    def _may_pass(self, error: BaseException) -> bool:
        failure = failure_of(error)
        reloaded = failure is not None and failure.unknown_model and 0 < self._reloads <= 2
        return self._usage_refused or reloaded or passing(error)


def refuses_usage(error: Exception, failure: Failure | None) -> bool:
    """Return whether a server refused a request because it asks for a stream's usage, as some older servers do."""
    return failure is not None and failure.status in (400, 422) and "stream_options" in str(error)


class _Read(Iterator[Any]):
    """A stream whose chunks are read under `reading`."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream

    def __next__(self) -> Any:
        with reading():
            return next(self._stream)

    def close(self) -> None:
        """Close the stream, so that the server stops generating."""
        getattr(self._stream, "close", lambda: None)()


async def _aread(stream: AsyncIterator[Any]) -> Any:
    """Read an asynchronous stream under `reading`, and close it at the end."""
    try:
        while True:
            try:
                with reading():
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


@contextlib.asynccontextmanager
async def _in_thread(context: AbstractContextManager[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Enter and exit a context manager that may block in a thread."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
