"""Options of one call of `LocalChatModel`, validated before anything is computed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from pydantic import TypeAdapter, ValidationError

from langgraph_dynrag.chat_model.reply_grammar import answer_schema, check_calls
from langgraph_dynrag.chat_model.tool_calling import chosen_tools
from rag_backbone.checks import refuse_unknown, shown
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Constraint, Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph_dynrag.chat_model.chat_template import EncodedPrompt

StopRule = Callable[[str], bool]
"""Called with the characters that each new token completes; generation ends when it returns true."""

_SIGNALS = ("entropy", "attention")
MODEL_OPTIONS = ("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "logprobs", "top_logprobs", "timeout")
"""Options that are also fields of the model."""
OTHER_NAMES = {
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "model_name": "model",
    "request_timeout": "timeout",
    "stop_sequences": "stop",
}
"""Aliases of options that LangChain and its users use."""
_WITHOUT_EFFECT = frozenset(
    {"max_retries", "stream", "stream_usage", "ls_structured_output_format", "structured_output_format"}
)
"""Options that LangChain passes along: read by its base class, or always true here (usage is always reported)."""
CALL_OPTIONS = frozenset(
    {
        *MODEL_OPTIONS,
        *OTHER_NAMES,
        *_WITHOUT_EFFECT,
        "model",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "logit_bias",
        "stop_when",
        "adapters",
        "signals",
    }
)
"""Names of the options that a call accepts."""


class CallOptions:
    """The model's options, overridden by those of a call.

    Args:
        chat: The model.
        stop: The call's stop strings; None for the model's.
        call: The call's keyword arguments.

    Raises:
        ConfigurationError: If a name is unknown, or a value has the wrong type.
    """

    def __init__(self, chat: BaseChatModel, stop: list[str] | None, call: dict[str, Any]) -> None:
        refuse_unknown(call, CALL_OPTIONS, "a call of LocalChatModel")
        given = {OTHER_NAMES.get(name, name): value for name, value in call.items() if value is not None}
        if stop is not None:
            given["stop"] = stop

        def default(name: str) -> Any:
            return getattr(chat, name)

        def option(name: str) -> Any:
            return checked(chat, name, given[name]) if name in given else default(name)

        model: str = default("model")
        if (other := given.get("model", model)) != model:
            raise ConfigurationError(
                f"this model is {model!r}; for {other!r}, create another LocalChatModel(model={other!r})"
            )
        self.tools, self.forced = chosen_tools(given.get("tools", ()), given.get("tool_choice"))
        self.answer = answer_schema(given.get("response_format"))
        check_calls(self.forced if self.answer is None else self.tools)
        self.parallel_tool_calls = bool(given.get("parallel_tool_calls", True))
        self.stop = tuple(option("stop") or ())
        self.max_tokens: int = option("max_tokens")
        self.top_logprobs: int = option("top_logprobs")
        self.logprobs: bool = bool(option("logprobs")) or self.top_logprobs > 0
        self.sampling = Sampling(
            temperature=option("temperature"),
            top_p=option("top_p"),
            top_k=option("top_k"),
            seed=option("seed"),
            logit_bias={int(token): float(bias) for token, bias in given.get("logit_bias", {}).items()},
        )
        self.stop_when: StopRule | None = given.get("stop_when")
        self.adapters = given.get("adapters")
        self.signals: Signals | None = None
        wanted = given.get("signals")
        if wanted is not None:
            unknown = set(wanted) - set(_SIGNALS)
            if unknown:
                raise ConfigurationError(f"unknown signals {sorted(unknown)}; known: {', '.join(_SIGNALS)}")
            self.signals = Signals(self.top_logprobs, entropy="entropy" in wanted, attention="attention" in wanted)
        self._timeout: float | None = option("timeout")
        self._started = time.monotonic()

    def request(self, prompt: EncodedPrompt, constraint: Constraint | None = None) -> Request:
        """Return the engine's request for a prompt; `constraint` restricts the form of the reply."""
        return Request(
            prompt.ids,
            max_new_tokens=self.max_tokens,
            stop=self.stop,
            sampling=replace(self.sampling, constraint=constraint),
            signals=self.signals or Signals(self.top_logprobs),
            adapters=self.adapters,
            answer_from=prompt.answer_from,
        )

    def check_time(self, tokens: int) -> None:
        """Raise `TimeoutError` if the call has exceeded its timeout; `tokens` is the number generated so far."""
        if self._timeout is not None and time.monotonic() - self._started > self._timeout:
            raise TimeoutError(
                f"the reply took longer than timeout={self._timeout:g} seconds and was stopped after {tokens} tokens"
            )


def checked(chat: BaseChatModel, name: str, value: Any) -> Any:
    """Validate the value of an option that is also a field of the model.

    Raises:
        ConfigurationError: If the value is invalid.
    """
    try:
        return _adapter(type(chat), name).validate_python(value)
    except ValidationError as error:
        raise ConfigurationError(f"{name} is {shown(value)}: {error.errors()[0]['msg']}") from error


@functools.cache
def _adapter(kind: type[BaseChatModel], name: str) -> TypeAdapter[Any]:
    annotation: Any = kind.model_fields[name].annotation
    return TypeAdapter(annotation)
