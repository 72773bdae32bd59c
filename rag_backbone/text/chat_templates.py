"""Renders a conversation as prompt text, adapting it to what the model's chat template accepts.

Templates differ: some refuse a system message (Gemma 1 and 2), some silently omit it, some require user and assistant
to alternate beginning with the user (Mistral, Llama 2), some do not support tool results, some take contents as lists
of parts (multimodal models), and some raise errors of other kinds. The conversation is rendered unchanged if the
template accepts it, otherwise in the next shape that the template accepts in full:

    unchanged  ->  alternating, system message kept  ->  system messages in the user's turn  ->  both

A shape is accepted if rendering raises no error and every text appears in the result. (Earlier reasoning may be
missing: templates of reasoning models omit it on purpose.) Knows no framework.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ChatTurn = dict[str, Any]
"""`role` and `content`, a string; further keys, such as `tool_calls`, are passed to the template."""

OPENING = "Hello."
"""Inserted before an assistant that speaks first, if the template requires a user turn and there is no system
message."""
_SYNONYMS = {
    "developer": "system",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "human": "user",
    "function": "tool",
}


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    thinking: bool | None = None,
) -> str:
    """Render a conversation up to the start of the assistant's next turn.

    Args:
        tokenizer: If it has no chat template, the turns are written in the usual few-shot layout.
        turns: Turns with `role` and `content`; control tokens in them are already broken up.
        tools: Tool schemas, for a template that supports tools.
        name: The model's name, for messages.
        thinking: Whether the assistant should reason first, if the template offers the choice; None uses its default.

    Returns:
        The prompt text. Without a template, the tokenizer's special tokens must still be added to it.

    Raises:
        ConfigurationError: If there are no turns, or the template refuses every shape; the message names the model.
    """
    if not turns:
        raise ConfigurationError("there are no messages; at least one is needed")
    turns, tools = clean_data(list(turns), "a message for the model"), clean_data(list(tools), "a tool's schema")
    given: list[ChatTurn] = [{**t, "role": _SYNONYMS.get(t["role"], t["role"])} for t in turns]
    if not tokenizer.chat_template:
        return _plain(given)
    owner = name or tokenizer.name_or_path or "this model"
    options: dict[str, Any] = {"tools": [dict(t) for t in tools]} if tools else {}
    if thinking is not None and "enable_thinking" in str(tokenizer.chat_template):
        options["enable_thinking"] = thinking
    refusal: Exception | None = None
    partial: str | None = None
    for shaped in _shapes(given):
        try:
            text = str(tokenizer.apply_chat_template(shaped, tokenize=False, add_generation_prompt=True, **options))
        except Exception as error:  # noqa: BLE001 - a template is a program that may raise anything
            refusal = refusal or error
            continue
        if _is_whole(text, given):
            return text
        partial = partial if partial is not None else text
    if partial is not None:
        logger.warning("the chat template of %s omits or changes parts of this conversation", owner)
        return partial
    roles = ", ".join(t["role"] for t in given)
    raise ConfigurationError(
        f"the chat template of {owner} refuses a conversation of {roles}, even with its system messages in the user's "
        f"turns and consecutive turns of one role merged: {refusal}. Set tokenizer.chat_template to one that accepts "
        "it, or to None for plain text."
    ) from refusal


def alternating(turns: Sequence[Mapping[str, Any]]) -> list[ChatTurn]:
    """Return the turns such that user and assistant alternate, with the user first.

    Consecutive turns of one role are merged; tool results and turns of unknown roles become the user's. A first system
    message is kept; later ones are moved into the user's turns.
    """
    first, others = (list(turns[:1]), turns[1:]) if turns[0]["role"] == "system" else ([], turns)
    merged: list[ChatTurn] = []
    for turn in system_in_user(others):
        spoken = _as_spoken(turn)
        calls = any("tool_calls" in t for t in (spoken, *merged[-1:]))
        if merged and merged[-1]["role"] == spoken["role"] and not calls:
            merged[-1] = {**merged[-1], "content": _joined(merged[-1]["content"], spoken["content"])}
        else:
            merged.append(spoken)
    if not merged:
        return [{**first[0], "role": "user"}]
    if merged[0]["role"] == "assistant":
        merged.insert(0, {"role": "user", "content": OPENING})
    return [*map(dict, first), *merged]


def system_in_user(turns: Sequence[Mapping[str, Any]]) -> list[ChatTurn]:
    """Return the turns with each system message at the start of the next user turn, or as a user turn if none follows.

    A system message before an assistant's turn that opens the conversation becomes a user turn before it.
    """
    merged: list[ChatTurn] = []
    waiting = ""
    for turn in turns:
        if turn["role"] == "system":
            waiting = _joined(waiting, turn["content"])
        elif turn["role"] == "user" and waiting:
            merged.append({**turn, "content": _joined(waiting, turn["content"])})
            waiting = ""
        elif turn["role"] == "assistant" and waiting and not merged:
            merged += [{"role": "user", "content": waiting}, dict(turn)]
            waiting = ""
        else:
            merged.append(dict(turn))
    return merged + ([{"role": "user", "content": waiting}] if waiting else [])


def _shapes(turns: list[ChatTurn]) -> list[list[ChatTurn]]:
    """Return the conversation in every shape to try: contents as strings first, then as lists of parts."""
    ways: tuple[Callable[[list[ChatTurn]], list[ChatTurn]], ...] = (
        list,
        alternating,
        system_in_user,
        lambda given: alternating(system_in_user(given)),
    )
    shapes: list[list[ChatTurn]] = []
    for way in ways:
        shaped = way(turns)
        if shaped not in shapes:
            shapes.append(shaped)
    return shapes + [[{**t, "content": [{"type": "text", "text": t["content"]}]} for t in s] for s in shapes]


def _is_whole(text: str, turns: list[ChatTurn]) -> bool:
    """Return whether every turn appears in a rendered prompt, and no list of parts was printed literally."""
    if "{'type': 'text'" in text and not any("{'type': 'text'" in t["content"] for t in turns):
        return False
    return all(_stands(t["content"].rpartition("</think>")[2].strip(), text) for t in turns)


def _stands(content: str, text: str) -> bool:
    """Return whether a content appears in a prompt, as it is or as a JSON string.

    Some templates write tool results as JSON strings.
    """
    return any(c in text for c in (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1]))


def _as_spoken(turn: Mapping[str, Any]) -> ChatTurn:
    """Return a turn as a user or assistant turn."""
    if turn["role"] in ("user", "assistant"):
        return dict(turn)
    if turn["role"] == "tool":
        return {"role": "user", "content": f"Result of {turn.get('name') or 'the function'}: {turn['content']}"}
    return {"role": "user", "content": turn["content"]}


def _joined(one: str, other: str) -> str:
    return f"{one}\n\n{other}" if one and other else one or other


def _plain(turns: list[ChatTurn]) -> str:
    """Return the usual few-shot question-answering layout, for models without a chat template."""
    parts = []
    for turn in turns:
        content = turn["content"]
        if turn["role"] == "assistant":
            parts.append(f" {content}\n\n")
        elif turn["role"] == "system":
            parts.append(f"{content}\n\n")
        else:
            content = _as_spoken(turn)["content"]
            parts.append(content if content.endswith(":") else f"{content}\nAnswer:")
    return "".join(parts)
