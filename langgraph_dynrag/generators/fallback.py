"""A model with fallbacks, as built by `with_fallbacks`: the first model that succeeds writes a draft or reply."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply
from langgraph_dynrag.generators.protocols import Generator

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
COMMON_SIGNALS: frozenset[Signal] = frozenset({"logprob", "entropy"})
"""Signals that can be read whichever model wrote the draft."""


class FallbackGenerator(Generator):
    """Several models; when one fails, the next is asked.

    Only signals that all models give are available. Models do not share tokens, so an answer is continued by its text.

    Args:
        generators: The models, in the order in which they are asked.
        exceptions: Exceptions after which the next model is asked; all others are raised.
    """

    def __init__(self, generators: Sequence[Generator], exceptions: tuple[type[BaseException], ...]) -> None:
        self.generators = tuple(generators)
        self.exceptions = exceptions

    @property
    def signals(self) -> frozenset[Signal]:
        """Signals that all models give."""
        return COMMON_SIGNALS.intersection(*(g.signals for g in self.generators))

    @property
    def context_window(self) -> int | None:
        """Smallest known context window."""
        known = [w for g in self.generators if (w := g.context_window) is not None]
        return min(known, default=None)

    @property
    def opens_reasoning(self) -> bool | None:
        """Always None, since each model records its own."""
        return None

    def count_tokens(self, text: str) -> int:
        """Return the highest token count of any model."""
        return max(g.count_tokens(text) for g in self.generators)

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Return the highest token count of any model."""
        return max(g.prompt_tokens(messages) for g in self.generators)

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Return the draft of the first model that succeeds; tokens of failed models may already be shown."""
        failed: list[Exception] = []
        found = self._first(lambda g: g.draft(_for(g, task), config, on_token), failed)
        return _textual(found, failed)

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Return the draft of the first model that succeeds, asynchronously."""
        failed: list[Exception] = []
        found = await self._afirst(lambda g: g.adraft(_for(g, task), config, on_token), failed)
        return _textual(found, failed)

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the replies of the first model that succeeds."""
        return self._first(lambda g: g.ask(prompts, config), [])

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the replies of the first model that succeeds."""
        return await self._afirst(lambda g: g.aask(prompts, config), [])

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the reply of the first model that succeeds."""
        return self._first(lambda g: g.reply(prompt, config, max_tokens=max_tokens), [])

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the reply of the first model that succeeds."""
        return await self._afirst(lambda g: g.areply(prompt, config, max_tokens=max_tokens), [])

    def _first(self, function: Callable[[Generator], _T], failed: list[Exception]) -> _T:
        """Return the result of the first model that succeeds; the errors of those before it are added to `failed`."""
        for generator in self.generators:
            try:
                return function(generator)
            except Exception as error:  # noqa: BLE001 - re-raised unless it is one of `exceptions`
                self._next(generator, error, failed)
        raise failed[0]

    async def _afirst(self, function: Callable[[Generator], Awaitable[_T]], failed: list[Exception]) -> _T:
        """Do the same as `_first`, asynchronously."""
        for generator in self.generators:
            try:
                return await function(generator)
            except Exception as error:  # noqa: BLE001 - re-raised unless it is one of `exceptions`
                self._next(generator, error, failed)
        raise failed[0]

    def _next(self, generator: Generator, error: Exception, failed: list[Exception]) -> None:
        """Record a failure after which the next model is asked; raise any other error."""
        # Server errors are wrapped in an explanation; the client's exception is its cause.
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        if not any(isinstance(one, self.exceptions) for one in causes):
            raise error
        failed.append(error)
        at = self.generators.index(generator) + 1
        then = f"falling back to {self.generators[at]!r}" if at < len(self.generators) else "no fallback is left"
        logger.warning("%r failed (%s: %s); %s", generator, type(error).__name__, error, then)

    def __repr__(self) -> str:
        return f"FallbackGenerator({', '.join(map(repr, self.generators))})"


def _for(generator: Generator, task: DraftTask) -> DraftTask:
    """Return the task without data that belongs to another model."""
    return replace(
        task, accepted_ids=None, opens=generator.opens_reasoning, carried=replace(task.carried, token_ids=None)
    )


def _textual(found: DraftResult, failed: Sequence[Exception]) -> DraftResult:
    """Return a draft without data that belongs to the model that wrote it, with the failures of the others added."""
    failures = (*(type(error).__name__ for error in failed), *found.failures)
    draft = replace(found.draft, token_ids=None)
    return replace(found, draft=draft, attention=None, opens=None, failures=failures)
