"""Grammars that constrain a reply: JSON in the requested format, a call's arguments, or either of both.

`rag_backbone.engine.grammar` applies them during generation; `tool_calling` defines the format of calls.
"""

from __future__ import annotations

import graphlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from langgraph_dynrag.chat_model.tool_calling import ToolSchema, arguments_key, call_marks, tool_name
from rag_backbone.checks import shown
from rag_backbone.engine.grammar import check_schema
from rag_backbone.engine.json_schema import compiled_schema
from rag_backbone.errors import ConfigurationError

_FORMATS = """{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}, {"type": "json_object"}, \
{"type": "text"}, or a Pydantic class"""

_REFERENCE = re.compile(r'"\$ref": "#/\$defs/([^"]+)"')


def answer_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema for a response format as in OpenAI's API and `ChatOpenAI`.

    Args:
        response_format: None, OpenAI's mapping, or a Pydantic class.

    Returns:
        The schema; None if the reply may be any text.

    Raises:
        ConfigurationError: If it is none of these, or generation cannot be constrained to the schema.
    """
    if response_format is None:
        return None
    if isinstance(response_format, type) and is_basemodel_subclass(response_format):
        schema: Any = json_schema_of(response_format)
    else:
        kind = response_format.get("type") if isinstance(response_format, Mapping) else None
        if kind == "text":
            return None
        if kind == "json_object":
            schema = {"type": "object"}
        elif kind == "json_schema" and isinstance(response_format.get("json_schema"), Mapping):
            schema = response_format["json_schema"].get("schema")
        else:
            raise ConfigurationError(f"response_format is {shown(response_format)}; known: {_FORMATS}")
    check_schema(schema, "response_format")
    return schema


def json_schema_of(schema: Any) -> Any:
    """Return the JSON schema of a class, a function or a tool, or a JSON schema as it is."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    if isinstance(schema, dict):
        named = schema.get("json_schema", schema)
        if isinstance(named, dict) and isinstance(named.get("schema"), dict):
            return named["schema"]
        if not any(key in schema for key in ("parameters", "input_schema", "function")):
            return schema
    return convert_to_json_schema(schema)


def tool_schema(tool: Any) -> dict[str, Any]:
    """Convert anything that LangChain accepts as a tool to OpenAI's format."""
    schema = convert_to_openai_tool(tool)
    if isinstance(tool, type) and issubclass(tool, BaseModel) and _recurs(exact := tool.model_json_schema()):
        schema["function"]["parameters"] = exact  # LangChain drops recursive parts of a schema
    return schema


def check_calls(tools: Sequence[ToolSchema]) -> None:
    """Refuse tools whose arguments generation cannot be constrained to.

    Raises:
        ConfigurationError: If a tool's schema is not supported.
    """
    for tool in tools:
        check_schema(_arguments(tool), f"tool {tool_name(tool)!r}")


def forced_call(tool: ToolSchema) -> str:
    """Return the grammar of the rest of a prefilled call: its arguments and the closing brace.

    The leading space is part of it, since most tokenizers merge it with the brace into one token.
    """
    return f'start: " " arguments "}}"\narguments: %json {compiled_schema(_arguments(tool))}'


def json_or_calls(schema: Mapping[str, Any], tools: Sequence[ToolSchema], prompt: str, *, parallel: bool) -> str:
    """Return the grammar of a reply that is JSON following a schema or, if there are tools, calls.

    Args:
        schema: JSON schema of the answer.
        tools: Tools that may be called.
        prompt: The rendered prompt, which determines the format of a call.
        parallel: Whether several calls are allowed.
    """
    answer = f"%json {compiled_schema(schema)}"
    if not tools:
        return f"start: {answer}"
    key, (opening, closing) = arguments_key(prompt), call_marks(prompt)
    names = [f"call{i}" for i in range(len(tools))]
    rules = [f"{name}: %json {compiled_schema(_call(tool, key))}" for name, tool in zip(names, tools, strict=True)]
    before, after = (f"{json.dumps(mark)} " if mark else "" for mark in (opening, closing))
    more = ' ("\\n" call)*' if parallel and opening else ""  # without marks, a second object would not be a call
    return "\n".join(
        [f"start: answer | call{more}", f"answer: {answer}", f"call: {before}({' | '.join(names)}) {after}", *rules]
    )


def _recurs(schema: Mapping[str, Any]) -> bool:
    """Return whether a definition refers to itself, directly or through others."""
    references = {name: _REFERENCE.findall(json.dumps(part)) for name, part in schema.get("$defs", {}).items()}
    try:
        graphlib.TopologicalSorter(references).prepare()
    except graphlib.CycleError:
        return True
    return False


def _arguments(tool: ToolSchema) -> dict[str, Any]:
    return {"type": "object", **(tool["function"].get("parameters") or {"properties": {}})}


def _call(tool: ToolSchema, key: str) -> dict[str, Any]:
    arguments = _arguments(tool)
    definitions: dict[str, Any] = {name: arguments.pop(name) for name in ("$defs", "definitions") if name in arguments}
    properties = {"name": {"const": tool_name(tool)}, key: arguments}
    return {"type": "object", "properties": properties, "required": ["name", key], **definitions}
