"""Rewriting the question of a conversation so that it can be searched for and answered on its own.

A condenser writes the instruction and reads the reply. `begin` calls the model in between, synchronously or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from langgraph_dynrag.inputs.conversation import Turn
from rag_backbone.checks import known_arguments
from rag_backbone.typed_fields import Bounds, check_fields

_LABEL = re.compile(
    r"^\W*(?:(?:the|here is the|here's the)\s+)?(?:(?:stand-?\s?alone|rewritten|rephrased|reformulated|condensed|"
    r"follow-?up|new|final)\s+)*question\s*(?:is)?\s*[*_]*:[*_]*\s*",
    re.IGNORECASE,
)
_QUESTION_MARKS = re.compile(r"[?\uff1f\u061f\u037e\u055e\u2047-\u2049\u1367]")
_ENDS = re.compile(r"[.!\u3002\uff01\u0964\u06d4\u1362]\W*$")
_REFUSALS = re.compile(
    r"^(?:i['\u2019]?m sorry|i am sorry|sorry\b|i can(?:not|['\u2019]t)\b|as an ai\b)", re.IGNORECASE
)
_ANSWERS = re.compile(r"^(?:the answer is|so the answer is|answer\s*:)", re.IGNORECASE)
_PROMPT = """\
Below are a conversation and the user's last message. Write the last message as one question that can be understood \
without the conversation: put in the names that its pronouns and allusions stand for, and keep everything else as it \
is, its language included. If it can be understood already, repeat it. Do not answer it. Reply with the question \
alone, in a single line.

Conversation:
{history}

Last message: {question}\
"""


class Condensed(NamedTuple):
    """The outcome of reading a reply: a question that stands alone, or the reason why there is none."""

    question: str | None
    problem: str | None = None


@runtime_checkable
class Condenser(Protocol):
    """Turns a question and the turns before it into a question that stands alone."""

    def prompt(self, turns: Sequence[Turn], question: str) -> str:
        """Return the instruction for the model."""

    def read(self, reply: str, question: str) -> Condensed:
        """Return the question in a reply, which contains no reasoning."""


@known_arguments
@dataclass(frozen=True, slots=True)
class CondenseQuestion:
    """Asks the model, in one call, to replace the pronouns of the question by what they stand for.

    A reply is rejected if it is empty, more than `max_words` words (or `8 * max_words` characters, for scripts without
    spaces) longer than the question, or clearly an answer rather than a question.

    Raises:
        ConfigurationError: If `max_words` is less than 1.
    """

    max_words: Annotated[int, Bounds(least=1)] = 48

    def __post_init__(self) -> None:
        check_fields(self)

    def prompt(self, turns: Sequence[Turn], question: str) -> str:
        """Return the instruction, the conversation and the question."""
        history = "\n".join(f"{turn.role.capitalize()}: {' '.join(turn.text.split())}" for turn in turns)
        texts = {"history": history, "question": question}
        # Inserted texts are not scanned for placeholders again.
        return re.sub(r"\{(history|question)\}", lambda match: texts[match[1]], _PROMPT)

    def read(self, reply: str, question: str) -> Condensed:
        """Return the first line that can be the question, without label, quotes and emphasis."""
        lines = [line for raw in reply.splitlines() if (line := _bare(raw)) and not line.endswith((":", "\uff1a"))]
        if not lines:
            return Condensed(None, "the reply is empty")
        found = next((line for line in lines if _QUESTION_MARKS.search(line)), lines[0])
        words = len(found.split()) - len(question.split())
        if words > self.max_words or len(found) - len(question) > 8 * self.max_words:
            return Condensed(None, "the reply is too long for a question")
        if _REFUSALS.match(found) or _ANSWERS.match(found):
            return Condensed(None, "the reply is not a question")
        # A statement in reply to a question. Names and keywords, which have no question mark, are left alone.
        if _QUESTION_MARKS.search(question) and not _QUESTION_MARKS.search(found) and _ENDS.search(found):
            return Condensed(None, "the reply is an answer, not a question")
        return Condensed(found)


def _bare(line: str) -> str:
    return _LABEL.sub("", line.strip()).strip().strip("\"'`*\u201c\u201d\u00ab\u00bb").strip()
