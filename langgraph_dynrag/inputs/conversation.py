"""Reads a graph's messages: the question's text, the turns before it, and the user's system text.

Pure; knows no nodes or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage

from langgraph_dynrag.reasoning import REASONING_BLOCKS, split_reasoning
from rag_backbone.text.unicode import clean_text


class Turn(NamedTuple):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


class MessageParts(NamedTuple):
    """A message's text, and the types of its content blocks that hold no text, such as images."""

    text: str
    others: tuple[str, ...]


def message_parts(message: BaseMessage) -> MessageParts:
    """Return the text of a message, cleaned of lone surrogates, and the types of the blocks that are not text."""
    if isinstance(message.content, str):
        return MessageParts(clean_text(message.content, "a message"), ())
    texts: list[str] = []
    others: list[str] = []
    for block in message.content:
        kind = "text" if isinstance(block, str) else str(block.get("type"))
        if kind == "text":
            texts.append(block if isinstance(block, str) else str(block.get("text") or ""))
        elif kind not in REASONING_BLOCKS:
            others.append(kind)
    return MessageParts(clean_text("".join(texts), "a message"), tuple(others))


def earlier_turns(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Return what user and assistant said, without reasoning, tool messages and turns without text."""
    turns: list[Turn] = []
    for message in messages:
        text = message_parts(message).text
        if _is_role(message, HumanMessage, ("user", "human")):
            turns.append(Turn("user", text.strip()))
        elif _is_role(message, AIMessage, ("assistant", "ai")):
            turns.append(Turn("assistant", split_reasoning(text).answer.strip()))
    return [turn for turn in turns if turn.text]


def not_text_warning(messages: Sequence[BaseMessage]) -> str | None:
    """Return a warning that counts the content of user and system messages that cannot be read; None if all can."""
    read = [m for m in messages if isinstance(m, HumanMessage | SystemMessage | ChatMessage)]
    others = Counter(kind for message in read for kind in message_parts(message).others)
    if not others:
        return None
    told = ", ".join(f"{count} of type {kind!r}" for kind, count in others.items())
    return f"only the text of the messages was read; other content was left out: {told}"


def system_text(messages: Sequence[BaseMessage]) -> str:
    """Return the texts of the system messages, deduplicated and in order; empty if there are none."""
    systems = [m for m in messages if _is_role(m, SystemMessage, ("system", "developer"))]
    return "\n\n".join(dict.fromkeys(text for m in systems if (text := message_parts(m).text.strip())))


def fitting(turns: Sequence[Turn], budget: int, count: Callable[[str], int]) -> list[Turn]:
    """Return the last turns that fit into `budget` tokens. If not even one does, the last one loses its first words."""
    kept: list[Turn] = []
    for turn in reversed(turns):
        size = count(turn.text)
        if size > budget:
            break
        budget -= size
        kept.insert(0, turn)
    if turns and not kept and budget > 0:
        words = turns[-1].text.split()
        while words and count(" ".join(words)) > budget:
            del words[: max(1, len(words) // 8)]
        kept = [Turn(turns[-1].role, " ".join(words))] if words else []
    return kept


def _is_role(message: BaseMessage, kind: type[BaseMessage], roles: tuple[str, ...]) -> bool:
    return isinstance(message, kind) or (isinstance(message, ChatMessage) and message.role.lower() in roles)
