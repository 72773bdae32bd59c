"""The one prompt of training and answering, and the one way to read an answer.

What an adapter was trained on and what it is asked later must be the same tokens, so both come from here: with passages
in the prompt (in context, the teacher, `injection="combined"`), or without (parametric).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_backbone.text.chat_templates import render_chat
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Answer with a short phrase, without a sentence around it."
"""Opens the prompt; where a model has a chat template, it becomes the system message."""
LABEL = "Short answer:"
_LEAD = re.compile(r"^\s*(?:(?:the|so the|the short|short|final)\s+)?answer(?:\s+is|\s*:)?\s*:?\s+", re.IGNORECASE)
# A full stop ends an answer only where a sentence can end: not after a single capital or within a number.
_END = re.compile(r"(?<![\s.][A-Z])(?<!^[A-Z])[.!?](?=\s+[A-Z\"'(]|\s*$)")
_QUOTES = "\"'“”‘’`*"


def user_text(question: str, passages: Sequence[str] = ()) -> str:
    """What is asked: the instruction, the passages, if any, then the question."""
    asked = f"Question: {question.strip()}\n{LABEL}"
    return "\n\n".join([INSTRUCTION, *(p.strip() for p in passages), asked])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str, passages: Sequence[str] = ()) -> list[int]:
    """The tokens after which the answer begins."""
    return chat_ids(tokenizer, user_text(question, passages))


def chat_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, name: str | None = None) -> list[int]:
    """The tokens of one text, such as `user_text` gives, after which the reply begins.

    Our own instruction, if the text begins with it, takes the place of the system message that many templates add by
    themselves: it is obeyed better there, and the prompt is shorter.
    """
    asked = text.removeprefix(INSTRUCTION).lstrip()
    if asked == text.lstrip() or not tokenizer.chat_template:
        return conversation_ids(tokenizer, [("user", text)], name=name)
    return conversation_ids(tokenizer, [("system", INSTRUCTION), ("user", asked)], name=name)


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[tuple[str, str]], *, name: str | None = None
) -> list[int]:
    """(role, text) messages through the model's chat template; plain text where it has none.

    Control tokens that a text imitates are broken up: no passage can end its own turn.

    Args:
        tokenizer: The model's.
        messages: In their order.
        name: The model's name, for messages.

    Raises:
        ConfigurationError: If there is no message, or the template refuses them in every shape (`render_chat`).
    """
    turns = [{"role": role, "content": neutralised(tokenizer, text)} for role, text in messages]
    text = render_chat(tokenizer, turns, name=name)
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template).input_ids)


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """The tokens of an answer that follows `prompt_ids`, without an end."""
    text = neutralised(tokenizer, answer.strip())
    return list(tokenizer(text if tokenizer.chat_template else " " + text, add_special_tokens=False).input_ids)


def clean_answer(text: str) -> str:
    """The answer itself: first line and sentence, without a lead such as "The answer is" and without quotes."""
    line = next((part.strip() for part in text.strip().splitlines() if part.strip()), "")
    line = _LEAD.sub("", line, count=1)
    end = _END.search(line)
    if end is not None:
        line = line[: end.start()]
    return line.strip().strip(_QUOTES).strip()
