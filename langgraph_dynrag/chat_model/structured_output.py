"""`LocalChatModel.with_structured_output`: bind the options of each method, and parse the reply.

Replies follow the schema (see `reply_grammar`), so one that cannot be parsed was either cut off or rejected by a user's
validator. Both are errors that are raised or returned; the output is never a silent None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from langgraph_dynrag.chat_model.reply_grammar import json_schema_of, tool_schema
from langgraph_dynrag.chat_model.tool_calling import tool_name
from rag_backbone.errors import ConfigurationError, DynPragError

Method = Literal["function_calling", "json_schema", "json_mode"]


def structured(
    chat: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, options: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """Return a runnable whose output is the reply parsed by a schema; see `LocalChatModel.with_structured_output`."""
    if method not in get_args(Method):
        raise ConfigurationError(f"method is {method!r}; known: {', '.join(map(repr, get_args(Method)))}")
    if schema is None and method != "json_mode":
        raise ConfigurationError(f"schema is None; method={method!r} needs one (method='json_mode' does not)")
    traced = {"kwargs": {"method": method}, "schema": schema}
    tool = None
    if method == "function_calling":
        described = tool_schema(schema)
        tool = tool_name(described)
        model = chat.bind_tools([described], tool_choice=tool, ls_structured_output_format=traced, **options)
    else:
        asked: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            asked = {"type": "json_schema", "json_schema": {"name": "reply", "schema": json_schema_of(schema)}}
        model = chat.bind(response_format=asked, ls_structured_output_format=traced, **options)
    read = ReplyParser(target=schema if _is_pydantic(schema) else None, tool=tool)
    if not include_raw:
        return model | read
    if tool is not None:
        model = _with_incomplete(model)
    parsed, error = (RunnableLambda(itemgetter("raw")) | RunnableLambda(part) for part in (read.parsed, read.error))
    return RunnableMap(raw=model) | RunnablePassthrough.assign(parsed=parsed, parsing_error=error)


class IncompleteCallError(DynPragError, OutputParserException):
    """A forced call ended before its arguments were complete.

    It is not returned as a normal reply, because agents would retry forever or take None for an answer.
    """

    def __init__(self, reply: AIMessage) -> None:
        OutputParserException.__init__(self, _ended_early(reply), llm_output=reply.text)
        self.reply = reply
        """Text generated so far, with the reason why it ended (`response_metadata["finish_reason"]`)."""


class ReplyParser(BaseCumulativeTransformOutputParser[Any]):
    """Parses replies, and raises the reason if one cannot be parsed."""

    target: Any = None
    """Pydantic class to create an instance of."""
    tool: str | None = None
    """Tool whose arguments are parsed; None to parse the text."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse a reply; if `partial`, an unfinished reply is parsed as far as it goes."""
        generation = result[0]
        assert isinstance(generation, ChatGeneration)
        message = generation.message
        assert isinstance(message, AIMessage)
        ended = message.response_metadata.get("finish_reason")
        if partial and ended is None:
            return None if self.tool or self.target else _begun(message.text)
        if ended == "length":
            raise OutputParserException(_ended_early(message), llm_output=message.text)
        value = _json(message) if self.tool is None else _arguments(message, self.tool)
        return value if self.target is None else _instance(self.target, value)

    def parse(self, text: str) -> Any:
        """Parse a JSON text."""
        value = _json(AIMessage(text))
        return value if self.target is None else _instance(self.target, value)

    def parsed(self, message: AIMessage) -> Any:
        """Return the parsed reply; None if it cannot be parsed."""
        return self._outcome(message)[0]

    def error(self, message: AIMessage) -> Exception | None:
        """Return why a reply cannot be parsed; None if it can."""
        return self._outcome(message)[1]

    def _outcome(self, message: AIMessage) -> tuple[Any, Exception | None]:
        try:
            return self.parse_result([ChatGeneration(message=message)]), None
        except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
            return None, error

    @property
    def _type(self) -> str:
        return "dynprag-reply"


def _with_incomplete(model: Runnable[Any, AIMessage]) -> Runnable[Any, AIMessage]:
    """Return the model with incomplete calls returned as replies instead of raised."""
    written = RunnableLambda(lambda failed: failed["error"].reply)
    asked = RunnableLambda(itemgetter("asked")) | model
    return RunnableMap(asked=RunnablePassthrough()) | asked.with_fallbacks(
        [written], exceptions_to_handle=(IncompleteCallError,), exception_key="error"
    )


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _begun(text: str) -> Any:
    """Parse an unfinished JSON text; None if nothing can be parsed yet."""
    try:
        return parse_partial_json(text)
    except ValueError:
        return None


def _json(message: AIMessage) -> Any:
    try:
        return json.loads(message.text)
    except ValueError as error:  # also raised for numbers with thousands of digits
        raise OutputParserException(_ended_early(message), llm_output=message.text) from error


def _arguments(message: AIMessage, tool: str) -> dict[str, Any]:
    found = [call["args"] for call in message.tool_calls if call["name"] == tool]
    if not found:
        raise OutputParserException(_ended_early(message), llm_output=message.text)
    return found[0]


def _ended_early(message: AIMessage) -> str:
    why = "ended before its JSON was complete, by a stop string or a stop rule"
    if message.response_metadata.get("finish_reason") == "length":
        usage = message.usage_metadata
        tokens = "" if usage is None else f"={usage['output_tokens']}"
        why = f"was cut off at max_tokens{tokens} (or where the context window ends), before its JSON was complete"
    return f"the reply {why}: {message.text!r}"


def _instance(target: Any, value: Any) -> Any:
    return target.model_validate(value) if issubclass(target, BaseModel) else target.parse_obj(value)
