"""Validation of a graph's input before anything runs, with error messages that show the line to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from langchain_core.messages import BaseMessage, convert_to_messages

from langgraph_dynrag.state import DynamicRAGContext, DynamicRAGState
from rag_backbone.checks import shown, suggestion
from rag_backbone.errors import ConfigurationError

_KNOWN = tuple(get_type_hints(DynamicRAGState))


def check_input(given: Any) -> None:
    """Reject an input that contains no question if the reason can be named.

    None (a resumed run), commands and other objects are left to LangGraph.

    Raises:
        ConfigurationError: If the input is invalid; the message names what was given and what is needed.
    """
    if isinstance(given, str):
        raise ConfigurationError(f'the input is {shown(given)}; a mapping is needed: {{"question": {given!r}}}')
    if isinstance(given, BaseMessage) or (isinstance(given, Sequence) and not isinstance(given, bytes)):
        raise ConfigurationError(f'the input is {shown(given)}; a mapping is needed: {{"messages": [...]}}')
    if isinstance(given, bytes | bool | int | float):
        raise ConfigurationError(f'the input is {shown(given)}; a mapping is needed: {{"question": "..."}}')
    if not isinstance(given, Mapping):
        return
    if given and not any(name in _KNOWN for name in given):
        said = ", ".join(f"{name!r}{suggestion(str(name), ('question', 'messages'))}" for name in given)
        raise ConfigurationError(
            f'the input has {said}, and neither "question" nor "messages"; give {{"question": "..."}} or '
            '{"messages": [...]}'
        )
    check_question(given.get("question"))
    if given.get("messages") is not None:
        _check_messages(given["messages"])


def check_question(question: object) -> None:
    """Reject a question that is not text.

    Raises:
        ConfigurationError: If it is not text; the message names its type and what to write.
    """
    if question is None or isinstance(question, str):
        return
    advice = ""
    if isinstance(question, BaseMessage):
        advice = '. For a message: {"messages": [message]}'
    elif isinstance(question, bytes | bytearray):
        advice = ". For bytes: question.decode()"
    elif isinstance(question, list | tuple):
        advice = '. For several questions: graph.batch([{"question": q} for q in questions])'
    raise ConfigurationError(f"the question is {shown(question)}; a text is needed{advice}")


def check_context(context: object) -> None:
    """Reject a context that is neither a mapping nor a `DynamicRAGContext`, which LangGraph would ignore.

    Raises:
        ConfigurationError: If the context is invalid; the message shows it.
    """
    if isinstance(context, str | bytes | bool | int | float | Sequence):
        raise ConfigurationError(f'the context is {shown(context)}; a mapping is needed, such as {{"k": 5}}')
    if isinstance(context, type) and issubclass(context, DynamicRAGContext):
        raise ConfigurationError("the context is the class DynamicRAGContext; pass an instance: DynamicRAGContext(k=5)")


def _check_messages(messages: Any) -> None:
    given = messages if isinstance(messages, list | tuple) else [messages]
    try:
        convert_to_messages(given)
    except (NotImplementedError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"messages is {shown(messages)}, which LangChain cannot convert to messages: "
            f'{str(error).splitlines()[0]}. Give a list such as [HumanMessage("...")] or [("user", "...")]'
        ) from error
