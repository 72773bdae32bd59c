"""Encode a conversation as token ids, with the model's chat template or, without one, as plain text.

Text of users and documents can never become a control token: the strings of the tokenizer's special tokens are broken
up in every message. A last `AIMessage` is left open, to be continued. If it carries its token ids
(`response_metadata["dynprag"]["token_ids"]`), these are used, because tokenizing its text again may give different ids
than the model generated. A reasoning block opened by the template is closed before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from langgraph_dynrag.chat_model.tool_calling import (
    ToolSchema,
    call_text,
    instructions,
    result_text,
    template_knows_tools,
)
from langgraph_dynrag.reasoning import REASONING_BLOCKS, answers_only, opened_block
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.chat_templates import ChatTurn, render_chat
from rag_backbone.text.special_tokens import neutralised
from rag_backbone.text.unicode import clean_text
from rag_backbone.text.units import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_CALL_BLOCKS = {"tool_use", "tool_call", "tool_call_chunk", "function_call", "invalid_tool_call"}


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model sees it."""

    ids: list[int]
    text: str
    """Rendered prompt, without the open answer."""
    spans: list[Span]
    """Characters of `text` that each token covers; the open answer's tokens have no span."""

    @property
    def answer_from(self) -> int:
        """Number of tokens before the open answer, which are those with a span."""
        return len(self.spans)

    def tokens_of(self, part: str) -> list[int]:
        """Return the positions of the tokens that overlap the last occurrence of `part` in the text; empty if absent.

        It is the last occurrence because a prompt ends with the question, which a document might repeat.
        """
        start = self.text.rfind(part) if part else -1
        if start < 0:
            return []
        end = start + len(part)
        return [i for i, s in enumerate(self.spans) if s.start < end and s.end > start]


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[BaseMessage],
    tools: Sequence[ToolSchema] = (),
    *,
    name: str | None = None,
) -> EncodedPrompt:
    """Render and tokenize a conversation, with the tools that the model may call.

    Args:
        tokenizer: The model's tokenizer, with or without a chat template.
        messages: The conversation; a last `AIMessage` is left open.
        tools: Tools to describe in the prompt.
        name: The model's name, for error messages.

    Raises:
        ConfigurationError: If the conversation is empty, has content other than text, or is refused by the template in
            every form.
    """
    if not messages:
        raise ConfigurationError("there are no messages; at least one is needed")
    *turns, last = messages
    answer = last if isinstance(last, AIMessage) else None
    dialogue = _as_dicts(tokenizer, turns if answer is not None else messages)
    known = template_knows_tools(tokenizer)
    if tools and not known:
        dialogue = _instructed(dialogue, neutralised(tokenizer, instructions(tools)))
    closed = answer is not None and answers_only(message_text(answer))
    text = render_chat(tokenizer, dialogue, tools=tools if known else (), name=name, thinking=False if closed else None)
    if closed and (mark := opened_block(text)) is not None:
        text = f"{text.rstrip()}\n\n{mark.closing}\n\n"  # the empty block that some templates write
    special = not tokenizer.chat_template
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=tokenizer.is_fast)
    ids = list(encoded.input_ids)
    offsets = encoded["offset_mapping"] if tokenizer.is_fast else [(0, 0)] * len(ids)
    open_ids = _answer_ids(tokenizer, answer) if answer is not None else []
    return EncodedPrompt(ids + open_ids, text, list(map(Span._make, offsets)))


def message_text(message: BaseMessage) -> str:
    """Return the text of a message, cleaned of lone surrogates.

    Raises:
        ConfigurationError: If the message has other content, such as an image.
    """
    if isinstance(message.content, str):
        return clean_text(message.content, "a message")
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif isinstance(message, AIMessage) and block.get("type") in _CALL_BLOCKS:
            continue  # duplicates `tool_calls`
        elif block.get("type") not in REASONING_BLOCKS:
            raise ConfigurationError(f"a message has content of type {block.get('type')!r}; only text can be read")
    return clean_text("".join(parts), "a message")


def _as_dicts(tokenizer: PreTrainedTokenizerBase, messages: Sequence[BaseMessage]) -> list[ChatTurn]:
    if template_knows_tools(tokenizer):
        return [_turn_with_calls(tokenizer, m) for m in messages]
    turns: list[ChatTurn] = []
    for message in messages:
        content = neutralised(tokenizer, message_text(message))
        if isinstance(message, ToolMessage):
            content = result_text(message.name and neutralised(tokenizer, message.name), content)
            # Several results form one turn: many templates require alternating user and assistant turns.
            if turns and turns[-1].get("result"):
                turns[-1]["content"] += "\n" + content
                continue
            turns.append({"role": "user", "content": content, "result": True})
            continue
        if isinstance(message, AIMessage) and message.tool_calls:
            calls = [neutralised(tokenizer, call_text(c["name"], c["args"])) for c in message.tool_calls]
            content = "\n".join([content, *calls] if content else calls)
        turns.append({"role": _role(message), "content": content})
    return [{"role": t["role"], "content": t["content"]} for t in turns]


def _turn_with_calls(tokenizer: PreTrainedTokenizerBase, message: BaseMessage) -> ChatTurn:
    turn: ChatTurn = {"role": _role(message), "content": neutralised(tokenizer, message_text(message))}
    if isinstance(message, ToolMessage):
        return {**turn, "tool_call_id": message.tool_call_id, "name": message.name or ""}
    if isinstance(message, AIMessage) and message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "id": c["id"], "function": {"name": c["name"], "arguments": c["args"]}}
            for c in message.tool_calls
        ]
    return turn


def _instructed(dialogue: list[ChatTurn], text: str) -> list[ChatTurn]:
    """Return the dialogue with `text` added to its system message, which is created if missing."""
    if dialogue and dialogue[0]["role"] == "system":
        first, *others = dialogue
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *others]
    return [{"role": "system", "content": text}, *dialogue]


def _role(message: BaseMessage) -> str:
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, ChatMessage):
        return message.role
    return "tool" if message.type == "tool" else "user"


def _answer_ids(tokenizer: PreTrainedTokenizerBase, answer: AIMessage) -> list[int]:
    text = message_text(answer)
    own: Any = answer.response_metadata.get("dynprag", {}).get("token_ids")
    if own is not None:
        ids = [int(i) for i in own]
        known = len(tokenizer)
        if all(0 <= i < known for i in ids):
            return ids
    return list(tokenizer(neutralised(tokenizer, text), add_special_tokens=False).input_ids)
