"""Tools of a local model: how they stand in its prompt, and its calls in what it writes.

A model whose chat template knows tools gets them through it. To any other they are described in the system message, in
the form that most open models were taught (Hermes): `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

Calls are read leniently (a bare JSON object, a code fence, Python's quotes, a closing tag that is missing) and safely:
nothing that a model writes is ever evaluated, only what it wrote itself is read, and without a tag only the name of a
tool that was offered makes a call. What cannot be read as a call stays text. What a model writes after a call, before
it knows the result, is made up; generation ends there. A call that is forced is held to its schema instead (see
`reply_grammar`).
"""

from __future__ import annotations

import ast
import functools
import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ToolSchema = Mapping[str, Any]
"""A tool as OpenAI describes it: `{"type": "function", "function": {"name", "description", "parameters"}}`."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(rf"{_OPEN}(?P<body>.*?)(?:{_CLOSE}|(?={_OPEN})|\Z)", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?\s*(?P<body>.*?)\s*(?:```)?\s*\Z", re.DOTALL)
_LONGEST = 20_000  # characters of a call; nobody's arguments are longer, and parsers of nested text are not free

_INSTRUCTIONS = """You can call functions. Their signatures, one a line:
<tools>
{tools}
</tools>
To call one, write its name and arguments as JSON between these tags, and nothing after them:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>
If no function is needed, answer in plain words."""


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call as a model wrote it."""

    name: str
    arguments: dict[str, Any]


class Parts(NamedTuple):
    """What a text consists of."""

    calls: list[WrittenCall]
    text: str
    """Everything outside of the calls."""


def tool_name(tool: ToolSchema) -> str:
    """The name of a tool."""
    return str(tool["function"]["name"])


def chosen_tools(tools: Sequence[ToolSchema], choice: Any) -> tuple[Sequence[ToolSchema], Sequence[ToolSchema]]:
    """The tools to offer, and whether one must be called.

    Args:
        tools: All of them.
        choice: As in LangChain: None, "auto", "none", "any", "required", True, a tool's name, or OpenAI's mapping.

    Returns:
        The tools to offer, and those of which one must be called; none: the model is free.

    Raises:
        ConfigurationError: If the choice names no tool that is there.
    """
    if isinstance(choice, Mapping):
        choice = (choice.get("function") or {}).get("name", choice)
    if choice in (None, False, "auto"):
        return tools, ()
    if choice == "none":
        return (), ()
    names = [tool_name(t) for t in tools]
    if choice in (True, "any", "required") and names:
        return tools, tools
    if choice not in names:
        raise ConfigurationError(
            f"tool_choice is {choice!r}; known: 'auto', 'none', 'any', and the tools {', '.join(names) or '(none)'}"
        )
    return tools, [t for t in tools if tool_name(t) == choice]


def call_marks(prompt: str) -> tuple[str, str]:
    """What stands before and after a call; nothing if the rendered prompt does not tell the model of the tags."""
    return (f"{_OPEN}\n", f"\n{_CLOSE}") if _OPEN in prompt else ("", "")


def arguments_key(prompt: str) -> str:
    """Under which key a call has its arguments."""
    return "arguments" if _OPEN in prompt else "parameters"


def name_start(prompt: str) -> str:
    """The beginning of a call up to its name, written for the model."""
    return call_marks(prompt)[0] + '{"name": "'


def arguments_start(prompt: str) -> str:
    """What follows the name, up to the arguments."""
    return f'", "{arguments_key(prompt)}":'


@functools.lru_cache(maxsize=16)
def template_knows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's chat template writes tools into the prompt."""
    if not tokenizer.chat_template:
        return False
    function = {"name": "probing", "description": "", "parameters": {"type": "object", "properties": {}}}
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}], tools=[{"type": "function", "function": function}], tokenize=False
        )
    except Exception:  # noqa: BLE001 - a template is a program of somebody else's; it may raise anything
        return False
    return "probing" in str(text)


def instructions(tools: Sequence[ToolSchema]) -> str:
    """What to tell a model whose template knows no tools."""
    return _INSTRUCTIONS.format(tools="\n".join(json.dumps(t["function"], ensure_ascii=False) for t in tools))


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as such a model writes it."""
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, default=str)
    return f"{_OPEN}\n{call}\n{_CLOSE}"


def result_text(name: str | None, content: str) -> str:
    """What a tool returned, as such a model is told: in words, for tags that it does not know it only repeats."""
    return f"Result of {name or 'the function'}: {content}"


def read_calls(text: str, names: Collection[str]) -> Parts:
    """The calls in a text, and the text around them.

    Args:
        text: What the model wrote.
        names: Of the tools that were offered; without a tag, only these are calls.
    """
    calls: list[WrittenCall] = []
    around, end = "", 0
    for block in _BLOCK.finditer(text):
        found = _calls_of(block["body"], None)
        if found:
            calls += found
            around += text[end : block.start()]
            end = block.end()
    if calls:
        return Parts(calls, (around + text[end:]).strip())
    calls = _calls_of(text, names)
    return Parts(calls, "" if calls else text)


class CallStream:
    """Parts a stream into what is said, passed on as it comes, and calls, told at the end.

    Args:
        names: Of the tools that were offered.
        begun: A beginning that was written for the model.
        parallel: Whether several calls may be made at once; else the first one alone is kept.
    """

    def __init__(self, names: Collection[str], begun: str = "", *, parallel: bool = True) -> None:
        self._names = names
        self._parallel = parallel
        self._forced = bool(begun)
        self._text = begun
        self._shown = 0
        self._held: list[ChatGenerationChunk] = []

    def push(self, chunk: ChatGenerationChunk, piece: str) -> list[ChatGenerationChunk]:
        """Take the next token; returns the chunks that are certainly no part of a call."""
        self._text += piece
        self._held.append(chunk)
        certain = 0 if self._forced else _certain(self._text)
        released: list[ChatGenerationChunk] = []
        while self._held and self._shown + len(str(self._held[0].message.content)) <= certain:
            released.append(self._held.pop(0))
            self._shown += len(str(released[-1].message.content))
        return released

    @property
    def over(self) -> bool:
        """Whether a call is complete and no other one follows."""
        if self._forced or _could_be_bare(self._text):
            start = self._text.find("{")
            body = self._text[start:] if self._text.lstrip()[:1] != "[" else self._text.lstrip()
            return start >= 0 and bool(_calls_of(body, None if self._forced else self._names, complete=True))
        closed = self._text.rfind(_CLOSE)
        rest = self._text[closed + len(_CLOSE) :].lstrip() if closed >= 0 else ""
        return bool(rest) and not rest.startswith(_OPEN) and not _OPEN.startswith(rest)

    def finish(self) -> tuple[list[ChatGenerationChunk], bool]:
        """The chunks that are left, and whether there are calls among them.

        Tokens that were held back and are no call are passed on as they are; those of calls are left out, with their
        log-probabilities, as OpenAI's are.
        """
        parts = read_calls(self._text, self._names)
        if not parts.calls:
            return self._held, False
        said = self._text[: self._shown].strip()
        rest = parts.text.removeprefix(said).strip()
        # What follows the last complete call was written before its result was known.
        closed = self._text.rfind(_CLOSE)
        if closed >= 0 and (tail := self._text[closed + len(_CLOSE) :].strip()):
            rest = rest.removesuffix(tail).rstrip()
        chunks = [
            tool_call_chunk(
                name=call.name, args=json.dumps(call.arguments), id=f"call_{uuid.uuid4().hex[:24]}", index=i
            )
            for i, call in enumerate(parts.calls if self._parallel else parts.calls[:1])
        ]
        return [ChatGenerationChunk(message=AIMessageChunk(content=rest, tool_call_chunks=chunks))], True


def _certain(text: str) -> int:
    """How many characters of a text that goes on are no part of a call."""
    if _could_be_bare(text):
        return 0
    if (at := text.find(_OPEN)) >= 0:
        return at
    begun = next((n for n in range(min(len(_OPEN) - 1, len(text)), 0, -1) if text.endswith(_OPEN[:n])), 0)
    return len(text) - begun


def _could_be_bare(text: str) -> bool:
    """Whether a message that begins so may be nothing but JSON."""
    begun = text.lstrip()
    return (
        not begun
        or begun.startswith("{")
        or re.match(r"\[\s*(?:\{|\Z)", begun) is not None
        or "```json".startswith(begun[:7])
    )


def _calls_of(body: str, names: Collection[str] | None, *, complete: bool = False) -> list[WrittenCall]:
    """The calls that a piece of JSON states; none if it states anything else.

    Args:
        body: One object or a list of them.
        names: What may be called; None: any name.
        complete: Whether the text may go on, so that nothing is guessed of its end.
    """
    value = _decoded(body, complete=complete)
    found = [_call(entry) for entry in (value if isinstance(value, list) else [value])]
    calls = [c for c in found if c is not None and (names is None or c.name in names)]
    return calls if len(calls) == len(found) else []


def _decoded(body: str, *, complete: bool) -> Any:
    body = body.strip()
    if len(body) > _LONGEST:
        return None
    if (fenced := _FENCE.match(body)) is not None:
        body = fenced["body"]
    try:
        return json.JSONDecoder().raw_decode(body)[0]
    except (ValueError, RecursionError):
        if complete:
            return None
    try:  # literals only: names and calls are refused
        return ast.literal_eval(body)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _call(value: Any) -> WrittenCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"].strip():
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # JSON within JSON, as OpenAI's API has it
        arguments = _decoded(arguments, complete=False) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict) or not all(isinstance(k, str) for k in arguments):
        return None
    try:
        json.dumps(arguments)
    except (TypeError, ValueError):  # sets and complex numbers are literals, too
        return None
    return WrittenCall(value["name"].strip(), arguments)
