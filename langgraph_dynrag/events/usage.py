"""Token usage that providers report for model calls: metered by a callback, summed, and recorded in events.

A call reports its usage when it ends. A stream that is abandoned early, as is common for drafts of remote models,
reports none. Such calls are counted separately, so that a sum is not mistaken for the total. Nothing is estimated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from langgraph_dynrag.events.events import Event
from langgraph_dynrag.events.parts import UsageState


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a number of model calls. `a + b` adds two."""

    calls: int = 0
    """Calls that were answered or abandoned while streaming."""
    reported: int = 0
    """Calls that reported their usage."""
    tokens: UsageMetadata | None = None
    """Sum of the reported usage, in LangChain's format; None if nothing was reported."""

    @classmethod
    def of(cls, message: object) -> Usage:
        """Return the usage of the one call that produced this reply."""
        tokens = getattr(message, "usage_metadata", None)
        return cls(1, 0, None) if not tokens else cls(1, 1, tokens)

    @classmethod
    def of_events(cls, events: Iterable[Event]) -> Usage:
        """Return the sum over the events of a trace."""
        total = cls()
        for event in events:
            if told := event.get("usage"):
                total += cls(told["calls"], told["reported"], told["tokens"])
        return total

    def __add__(self, other: Usage) -> Usage:
        tokens = add_usage(self.tokens, other.tokens) if self.tokens or other.tokens else None
        return Usage(self.calls + other.calls, self.reported + other.reported, tokens)

    def to_state(self) -> UsageState:
        """Return the usage as plain data, as events carry it."""
        return {"calls": self.calls, "reported": self.reported, "tokens": self.tokens}

    def __str__(self) -> str:
        if not self.calls:
            return "usage: no model calls"
        calls = f"{self.calls} model call{'s' if self.calls > 1 else ''}"
        if self.tokens is None:
            return f"usage of {calls}: not reported"
        told = f"{self.tokens['input_tokens']} input and {self.tokens['output_tokens']} output tokens"
        details = {
            f"{name.replace('_', ' ')} {side}": count
            for side, key in (("input", "input_token_details"), ("output", "output_token_details"))
            for name, count in (self.tokens.get(key) or {}).items()  # type: ignore[attr-defined]
            if count
        }
        if details:
            told += f" ({', '.join(f'{name}: {count}' for name, count in details.items())})"
        if self.reported < self.calls:
            told += f", reported by {self.reported} of them"
        return f"usage of {calls}: {told}"


class UsageMeter(BaseCallbackHandler):
    """Callback that counts the chat model calls made with a config, and their usage. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """The sum so far."""
        return self._usage

    def watching(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config with this meter among its callbacks."""
        return merge_configs(config, {"callbacks": [self]})

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:  # noqa: ARG002
        """Record a call that ended."""
        self._add(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Record a stream that was abandoned. A failed call is not counted."""
        if isinstance(error, GeneratorExit):
            self._add(kwargs.get("response"))

    def _add(self, response: LLMResult | None) -> None:
        message = None
        if response is not None and response.generations and response.generations[0]:
            message = getattr(response.generations[0][0], "message", None)
        if response is not None and not getattr(message, "usage_metadata", None):
            message = _from_output(response)
        with self._lock:
            self._usage += Usage.of(message)


def _from_output(response: LLMResult) -> AIMessage | None:
    """Return the usage that some integrations report for a whole result only, under OpenAI's names."""
    told = (response.llm_output or {}).get("token_usage") or {}
    read, written = told.get("prompt_tokens"), told.get("completion_tokens")
    if not isinstance(read, int) or not isinstance(written, int):
        return None
    return AIMessage(
        "", usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    )
