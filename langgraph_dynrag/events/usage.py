"""How many tokens a provider reports for model calls: metered by a callback, summed, and recorded in events.

A call reports its usage when it ends. A stream that is left early, as drafts of remote models often are, reports none;
such calls are counted, so that a sum is never taken for more than it is. Nothing is estimated.
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
    """The usage of some model calls. `a + b` sums two."""

    calls: int = 0
    """Calls that were answered, or left while they were answered."""
    reported: int = 0
    """Calls that reported their usage."""
    tokens: UsageMetadata | None = None
    """The sum of what was reported, in LangChain's shape; None if nothing was."""

    @classmethod
    def of(cls, message: object) -> Usage:
        """Return the usage of one call, whose reply is given."""
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
        """Return plain data, as events carry it."""
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
    """Counts the chat model calls that are made with a config, and their usage. Safe under threads."""

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
        """Take note of a call that ended."""
        self._add(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Take note of a stream that was left; a call that failed is none."""
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
    """Some integrations report usage of a whole result only, in OpenAI's names."""
    told = (response.llm_output or {}).get("token_usage") or {}
    read, written = told.get("prompt_tokens"), told.get("completion_tokens")
    if not isinstance(read, int) or not isinstance(written, int):
        return None
    return AIMessage(
        "", usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    )
