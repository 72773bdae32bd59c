"""The prompt of training and answering, and the parser of answers.

An adapter must be queried with the tokens that it was trained on, so both prompts come from here: with passages (in
context, the teacher, `injection="combined"`) or without (parametric).
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
"""Opens the prompt; if the model has a chat template, it becomes the system message."""
LABEL = "Short answer:"
_LEAD = re.compile(r"^\s*(?:(?:the|so the|the short|short|final)\s+)?answer(?:\s+is|\s*:)?\s*:?\s+", re.IGNORECASE)
# A full stop ends an answer only where a sentence can end: not after a single capital letter or inside a number.
_END = re.compile(r"(?<![\s.][A-Z])(?<!^[A-Z])[.!?](?=\s+[A-Z\"'(]|\s*$)")
_QUOTES = "\"'“”‘’`*"


def user_text(question: str, passages: Sequence[str] = ()) -> str:
    """Return the prompt text: the instruction, the passages, if any, then the question."""
    asked = f"Question: {question.strip()}\n{LABEL}"
    return "\n\n".join([INSTRUCTION, *(p.strip() for p in passages), asked])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str, passages: Sequence[str] = ()) -> list[int]:
    """Return the prompt's token ids, after which the answer begins.

    Args:
        tokenizer: The model's tokenizer, whose chat template is used.
        question: The question.
        passages: Texts to put before the question; none for an answer from the weights or closed book.
    """
    return chat_ids(tokenizer, user_text(question, passages))


def chat_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, name: str | None = None) -> list[int]:
    """Return the prompt's token ids for one text, such as `user_text` returns; the reply begins after them.

    If the text begins with `INSTRUCTION`, the instruction replaces the default system message that many chat templates
    add: models follow it better there, and the prompt is shorter.
    """
    asked = text.removeprefix(INSTRUCTION).lstrip()
    if asked == text.lstrip() or not tokenizer.chat_template:
        return conversation_ids(tokenizer, [("user", text)], name=name)
    return conversation_ids(tokenizer, [("system", INSTRUCTION), ("user", asked)], name=name)


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[tuple[str, str]], *, name: str | None = None
) -> list[int]:
    """Render (role, text) messages with the model's chat template, or as plain text if there is none.

    Imitations of control tokens in a text are broken up, so that no passage can end its own turn.

    Args:
        tokenizer: The model's tokenizer.
        messages: The messages, in order.
        name: The model's name, for error messages.

    Raises:
        ConfigurationError: If there is no message, or the template rejects them in every form (`render_chat`).
    """
    turns = [{"role": role, "content": neutralised(tokenizer, text)} for role, text in messages]
    text = render_chat(tokenizer, turns, name=name)
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template).input_ids)


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str, *, end: bool = False) -> list[int]:
    """Return the token ids of an answer that follows `prompt_ids`.

    Args:
        tokenizer: The model's tokenizer.
        answer: The answer.
        end: Whether an end-of-sequence token follows, if the tokenizer has one.
    """
    text = neutralised(tokenizer, answer.strip())
    ids = tokenizer(text if tokenizer.chat_template else " " + text, add_special_tokens=False).input_ids
    return [*ids, *([tokenizer.eos_token_id] if end and tokenizer.eos_token_id is not None else [])]


def clean_answer(text: str) -> str:
    """Extract the answer: first line and sentence, without a lead such as "The answer is" and without quotes."""
    line = next((part.strip() for part in text.strip().splitlines() if part.strip()), "")
    line = _LEAD.sub("", line, count=1)
    end = _END.search(line)
    if end is not None:
        line = line[: end.start()]
    return line.strip().strip(_QUOTES).strip()
