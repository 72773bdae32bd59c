"""Unwrap chat models from LangChain's wrappers: find the model inside, and how to call it.

`.bind(...)`, `.with_config(...)`, `.with_retry(...)`, `.with_fallbacks(...)`, `.configurable_fields(...)` and
`init_chat_model(..., configurable_fields=...)` do not return chat models but runnables around them. The options of a
wrapper have to reach every call, and what a graph needs to know can only be asked of the model inside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives, RunnableConfigurableFields
from langchain_core.runnables.retry import RunnableRetry
from tenacity import (
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
    wait_none,
)

from langgraph_dynrag.chat_model.call_options import MODEL_OPTIONS, OTHER_NAMES, checked
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

ChatModelLike: TypeAlias = Runnable[LanguageModelInput, AIMessage]
"""A chat model, wrapped or not."""

_NOT_TEXT = ("tools", "functions", "response_format")
"""Bound options with which a model may not answer in plain text."""


@dataclass(frozen=True)
class PlainModel:
    """One model and how it is called."""

    chat: Any
    """The chat model inside all wrappers. If it is configured at each call, this is the runnable that configures it."""
    calls: Any
    """The runnable to stream from and invoke: the model with its bound options and configuration."""
    bound: Mapping[str, Any] = field(default_factory=dict)
    """Options of every call."""
    retry: RunnableRetry[Any, Any] | None = None


def plain_models(model: Any) -> tuple[PlainModel, ...]:
    """Return the model inside the wrappers, followed by its fallbacks in order.

    Raises:
        ConfigurationError: If `model` is not a chat model, or is bound to return something other than text.
    """
    if isinstance(model, RunnableWithFallbacks):
        return tuple(plain for one in model.runnables for plain in plain_models(one))
    if isinstance(model, RunnableBindingBase):
        return tuple(_around(plain, model) for plain in plain_models(model.bound))
    if isinstance(model, RunnableConfigurableFields):
        within = plain_models(model.default)[0]
        return (replace(within, calls=model),)
    if isinstance(model, BaseChatModel) or _is_configurable(model):
        return (PlainModel(model, model),)
    raise ConfigurationError(_refusal(model))


def chat_model_within(model: Any) -> Any:
    """Return the first chat model inside the wrappers; anything else is returned as it is."""
    if isinstance(model, RunnableWithFallbacks):
        return chat_model_within(model.runnable)
    if isinstance(model, RunnableBindingBase):
        return chat_model_within(model.bound)
    return chat_model_within(model.default) if isinstance(model, RunnableConfigurableFields) else model


def fallback_exceptions(model: Any) -> tuple[type[BaseException], ...]:
    """Return the exceptions after which the next model is asked; empty if there are no fallbacks."""
    if isinstance(model, RunnableWithFallbacks):
        return tuple(model.exceptions_to_handle)
    return fallback_exceptions(model.bound) if isinstance(model, RunnableBindingBase) else ()


def retry_rules(retry: RunnableRetry[Any, Any] | None, *, deadline: float = math.inf) -> dict[str, Any]:
    """Return arguments for tenacity's `Retrying` as given to `with_retry`; a single attempt without that wrapper.

    LangChain itself applies them only to whole calls and not to streams, which drafts are.

    Args:
        retry: The wrapper.
        deadline: Deadline on the clock of `time.monotonic`; later failures are not retried.
    """
    if retry is None:
        return {"stop": stop_after_attempt(1), "reraise": True}
    most = retry.max_attempt_number
    # Newer versions of LangChain accept a function instead of types.
    kinds: Any = retry.retry_exception_types
    chosen = retry_if_exception_type(kinds) if isinstance(kinds, tuple) else retry_if_exception(kinds)
    jitter: Any = getattr(retry, "exponential_jitter_params", None) or {}
    wait: Any = wait_exponential_jitter(**jitter) if retry.wait_exponential_jitter else wait_none()

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= most or time.monotonic() >= deadline

    return {"stop": stop, "wait": wait, "retry": chosen, "reraise": True}


def _around(plain: PlainModel, wrapper: RunnableBindingBase[Any, Any]) -> PlainModel:
    bound: dict[str, Any] = dict(wrapper.kwargs)
    if not_text := [name for name in _NOT_TEXT if bound.get(name)]:
        raise ConfigurationError(
            f"the model is bound to {', '.join(not_text)} ({shown(wrapper)}), so it does not answer in plain text. "
            "Give the chat model without them; tools belong to an agent that has this graph as one of its tools."
        )
    chat, calls = plain.chat, plain.calls
    if isinstance(chat, LocalChatModel) and calls is chat:
        # Reflection and sampling read the model's own options.
        fields = {OTHER_NAMES.get(name, name): value for name, value in bound.items()}
        own = {name: checked(chat, name, value) for name, value in fields.items() if name in MODEL_OPTIONS}
        if own:
            chat = calls = chat.model_copy(update=own)
        bound = {name: value for name, value in bound.items() if OTHER_NAMES.get(name, name) not in own}
    config = RunnableConfig(**wrapper.config) if wrapper.config else RunnableConfig()
    if bound or config or wrapper.config_factories:
        inner = calls if isinstance(calls, RunnableBinding) else RunnableBinding(bound=calls)
        calls = RunnableBinding(
            bound=inner.bound,
            kwargs={**inner.kwargs, **bound},
            config=merge_configs(inner.config, config),
            config_factories=[*inner.config_factories, *wrapper.config_factories],
        )
    retry = wrapper if isinstance(wrapper, RunnableRetry) else plain.retry
    return PlainModel(chat, calls, {**plain.bound, **bound}, retry)


def _is_configurable(model: Any) -> bool:
    """Return whether the model is chosen at each call, by `configurable_alternatives` or `init_chat_model`."""
    if isinstance(model, RunnableConfigurableAlternatives):
        return isinstance(model.default, BaseChatModel)
    return isinstance(model, Runnable) and hasattr(type(model), "bind_tools")


def _refusal(model: Any) -> str:
    told = f"the model is {shown(model)}; a LangChain chat model is needed. "
    if isinstance(model, str):
        return told + f"For example init_chat_model({model!r}), or LocalChatModel(model=...)"
    if isinstance(model, Runnable):
        return told + (
            "A chain, such as the one that with_structured_output returns, does not return the model's text. Give the "
            "chat model itself; it may be wrapped in bind, with_config, with_retry or with_fallbacks."
        )
    return told + "For a model in memory: LocalChatModel.from_causal_lm(CausalLM(model, tokenizer))"
