"""Add evidence and signal settings to an agent's requests, and strip the signals from its responses.

Nothing that is passed in is mutated.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langgraph_dynrag.agents.options import REPORTED, WatchOptions
from langgraph_dynrag.agents.record import Record
from langgraph_dynrag.chat_model.chat_template import EncodedPrompt
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import Context, Signal
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import render, within_budget
from langgraph_dynrag.generators.chat import ChatGenerator
from langgraph_dynrag.generators.local import LocalGenerator
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.generators.wrapped_models import PlainModel, chat_model_within

_WITHHELD = "withheld"


def placeholder() -> AIMessage:
    """Return an empty message that stands in, for one pass of the agent, for an answer that will be rewritten."""
    return AIMessage("", id=str(uuid.uuid4()), response_metadata={"dynprag": {_WITHHELD: True}})


def is_placeholder(message: object) -> bool:
    """Return whether a message was created by `placeholder`."""
    return isinstance(message, AIMessage) and bool((message.response_metadata.get("dynprag") or {}).get(_WITHHELD))


def question_of_request(messages: Sequence[AnyMessage]) -> HumanMessage | None:
    """Return the last human message; None if there is none or it has no text."""
    question = next((m for m in reversed(messages) if isinstance(m, HumanMessage)), None)
    return None if question is None or not question.text.strip() else question


def asking_request(request: ModelRequest[Any], prompt: str) -> ModelRequest[Any]:
    """Return a request that holds one instruction only: no conversation, tools or output format."""
    settings = request.model_settings
    if isinstance(chat_model_within(request.model), LocalChatModel):
        settings = {**settings, "max_tokens": 48}
    return request.override(
        messages=[HumanMessage(prompt)],
        system_message=None,
        tools=[],
        tool_choice=None,
        response_format=None,
        model_settings=settings,
    )


def usage_of(response: ModelResponse[Any]) -> Usage:
    """Return the usage of the call that produced a response."""
    return Usage.of(next((m for m in response.result if isinstance(m, AIMessage)), None))


def with_usage(response: ModelResponse[Any], usage: Usage) -> ModelResponse[Any]:
    """Return the response with the total usage of all calls on its first AI message."""
    messages = list(response.result)
    for at, message in enumerate(messages):
        if isinstance(message, AIMessage):
            messages[at] = message.model_copy(update={"usage_metadata": usage.tokens})
            break
    return ModelResponse(messages, response.structured_response)


def with_evidence(
    options: WatchOptions, request: ModelRequest[Any], generator: Generator, record: Record
) -> tuple[list[AnyMessage], list[str]]:
    """Return the request's messages with the evidence next to the question, and the ids of passages that were cut.

    The evidence is added to the request only; the conversation in the agent's state does not change. No message is
    added, so that other middleware, and chat templates in which user and assistant must alternate, see the same
    messages as without it.
    """
    messages = list(request.messages)
    if not record["evidence"]:
        return messages, []
    budget = options.context_tokens
    if generator.context_window is not None:
        used = _prompt_tokens(request, messages, generator) + generator.count_tokens(options.with_passages)
        answer = getattr(chat_model_within(request.model), "max_tokens", None) or 0
        budget = min(budget, generator.context_window - used - int(answer))
    passages, affected = within_budget(record["evidence"], max(budget, 0), generator.count_tokens)
    if not passages:
        return messages, affected
    at = max(i for i, m in enumerate(messages) if isinstance(m, HumanMessage))
    messages[at] = _with_passages(messages[at], options.with_passages, render(passages))
    return messages, affected


def _with_passages(question: AnyMessage, template: str, passages: str) -> AnyMessage:
    """Insert the passages into the question's message as the template says; the message may contain images."""
    # Neither str.format nor consecutive replacements would do: passages and questions may contain braces.
    before, after = (part.replace("{passages}", passages) for part in template.split("{question}", 1))
    if isinstance(question.content, str):
        return question.model_copy(update={"content": before + question.content + after})
    around = [[{"type": "text", "text": text}] if text else [] for text in (before, after)]
    return question.model_copy(update={"content": [*around[0], *question.content, *around[1]]})


def has_room(options: WatchOptions, request: ModelRequest[Any], generator: Generator, record: Record) -> bool:
    """Return whether any of the evidence fits into the request."""
    return with_evidence(options, request, generator, record)[0] != list(request.messages)


def signal_settings(options: WatchOptions, request: ModelRequest[Any]) -> dict[str, Any]:
    """Return the request's model settings, extended to request the signals that are needed or free of charge."""
    if not options.needs and not isinstance(chat_model_within(request.model), LocalChatModel):
        return request.model_settings
    settings = {**request.model_settings, "logprobs": True}
    if isinstance(chat_model_within(request.model), LocalChatModel):
        wanted = {"entropy", *(options.needs & {"attention"}), *(settings.get("signals") or ())}
        return {**settings, "signals": sorted(wanted)}
    if "entropy" in options.needs:
        settings["top_logprobs"] = max(options.top_logprobs, settings.get("top_logprobs") or 0)
    return settings


def answer_in(response: ModelResponse[Any]) -> AIMessage | None:
    """Return the final answer in a response; None if the model called a tool."""
    answers = [m for m in response.result if isinstance(m, AIMessage)]
    if len(response.result) != 1 or not answers or answers[0].tool_calls or answers[0].invalid_tool_calls:
        return None
    return answers[0]


def repeated_call(response: ModelResponse[Any], request: ModelRequest[Any]) -> str | None:
    """Return the name of a called tool if every call repeats an earlier one for this question; otherwise None.

    A call is repeated if the same tool was called with the same arguments since the question was asked.
    """
    at = max((i for i, m in enumerate(request.messages) if isinstance(m, HumanMessage)), default=0)
    made = [(c["name"], c["args"]) for m in request.messages[at:] if isinstance(m, AIMessage) for c in m.tool_calls]
    calls = [c for m in response.result if isinstance(m, AIMessage) for c in m.tool_calls]
    if not calls or any((c["name"], c["args"]) not in made for c in calls):
        return None
    return str(calls[0]["name"])


def cleaned(response: ModelResponse[Any], request: ModelRequest[Any]) -> ModelResponse[Any]:
    """Return the response without the signals that only this middleware requested; attention cannot be serialised."""
    settings = request.model_settings
    removed = (
        set()
        if settings.get("logprobs") or getattr(chat_model_within(request.model), "logprobs", None)
        else {"logprobs"}
    )
    removed |= set() if settings.get("signals") else {"dynprag"}
    messages = []
    for message in response.result:
        metadata = {k: v for k, v in message.response_metadata.items() if k not in removed}
        changed = len(metadata) != len(message.response_metadata)
        messages.append(message.model_copy(update={"response_metadata": metadata}) if changed else message)
    return ModelResponse(messages, response.structured_response)


def is_refusal(error: Exception) -> bool:
    """Return whether an error means that the call itself was refused, not that the server or the network failed."""
    return isinstance(error, TypeError | ValueError) or getattr(error, "status_code", None) in (400, 404, 422)


def question_context(request: ModelRequest[Any], question: str) -> Context:
    """Locate the question in a local model's prompt, for query formulators that read attention."""
    prompt = _encoded(request, [*request.messages, AIMessage("")])
    positions = prompt.tokens_of(question)
    pieces = tuple(prompt.text[prompt.spans[i].start : prompt.spans[i].end] for i in positions)
    return Context(pieces, tuple(positions), ())


def generator_of(model: Any, options: WatchOptions) -> Generator:
    """Wrap the model as query formulators see it."""
    plain = PlainModel(chat_model_within(model), model)
    if isinstance(plain.chat, LocalChatModel):
        return LocalGenerator(plain)
    return ChatGenerator(plain, REPORTED, top_logprobs=options.top_logprobs)


def never_given(model: Any, options: WatchOptions) -> list[Signal]:
    """Return the needed signals that a model of this kind cannot provide."""
    beyond = options.needs - REPORTED
    # Querying a local model's signals loads the model.
    return sorted(beyond - generator_of(model, options).signals) if beyond else []


def _prompt_tokens(request: ModelRequest[Any], messages: Sequence[AnyMessage], generator: Generator) -> int:
    if isinstance(chat_model_within(request.model), LocalChatModel):
        return len(_encoded(request, messages).ids)
    return generator.prompt_tokens([*_system(request), *messages])


def _encoded(request: ModelRequest[Any], messages: Sequence[AnyMessage]) -> EncodedPrompt:
    chat = chat_model_within(request.model)
    assert isinstance(chat, LocalChatModel)
    tools = [convert_to_openai_tool(t) for t in request.tools]
    return chat.encode([*_system(request), *messages], tools)


def _system(request: ModelRequest[Any]) -> list[AnyMessage]:
    return [request.system_message] if request.system_message else []
