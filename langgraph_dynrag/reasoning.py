"""Separates a model's reasoning from its answer.

Reasoning models think before they answer. Some servers return the thoughts in a separate field or content block, others
within the text, between marks such as `<think>` and `</think>`. This module recognises both. Pure: it knows no graphs,
models or log-probabilities; each token carries an arbitrary value of the caller.

An opening mark counts at the start of a reply, a line or a sentence; elsewhere it is text (`The <think> tag is ...`).
A closing mark without an opening one means that the prompt opened the block, as the chat templates of DeepSeek-R1 and
QwQ do, so everything before it was reasoning. It is text if it follows a quotation mark or stands between two spaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar

from langchain_core.messages import BaseMessage

T = TypeVar("T")


class Marks(NamedTuple):
    """The strings before and after a block of reasoning."""

    opening: str
    closing: str


MARKS = (
    *(Marks(f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Marks("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss
    Marks("<|channel>thought", "<channel|>"),  # Gemma
)
_HEADERS = ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>", "<|start|>assistant")
"""Headers that gpt-oss writes before its answer; not part of the answer."""
_OPENINGS = tuple(m.opening.lower() for m in MARKS)
_CLOSINGS = tuple(dict.fromkeys(m.closing.lower() for m in MARKS if m.closing != "<|end|>"))
_SENTENCE_ENDS = ".!?:;\u2026\u3002\uff01\uff1f\u0964\u061f\n"
_QUOTES = "`'\"\u201c\u2018("
REASONING_BLOCKS = frozenset({"reasoning", "thinking", "reasoning_content", "redacted_thinking"})
"""Types of a message's content blocks that contain no answer."""
_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


class Split(NamedTuple):
    """The two parts of a text."""

    answer: str
    reasoning: str


def split_reasoning(text: str) -> Split:
    """Split a model's complete output into answer and reasoning."""
    splitter: ReasoningSplitter[None] = ReasoningSplitter()
    pieces, _ = splitter.push([(text, None)])
    more, recalled_at_end = splitter.finish()
    kept = "" if recalled_at_end else "".join(piece for piece, _ in pieces)
    return Split(kept + "".join(piece for piece, _ in more), splitter.text)


def answer_text(message: BaseMessage) -> str:
    """Return the text of a model's message without reasoning, whether in blocks, in fields or between marks."""
    text = message.content if isinstance(message.content, str) else str(message.text)
    return split_reasoning(text).answer


def answers_only(text: str) -> bool:
    """Return whether a text to be continued contains no reasoning, neither begun nor ended."""
    low = text.lower()
    return not low.lstrip().startswith(_OPENINGS) and not any(mark in low for mark in _CLOSINGS)


def reasons(template: Any) -> bool:
    """Return whether a chat template supports reasoning."""
    low = str(template or "").lower()
    return "enable_thinking" in low or "reasoning_content" in low or any(mark in low for mark in _OPENINGS)


def opened_block(prompt: str) -> Marks | None:
    """Return the marks of the reasoning block that a prompt ends within; None if there is none."""
    low = prompt.rstrip().lower()
    return next((m for m, opening in zip(MARKS, _OPENINGS, strict=True) if low.endswith(opening)), None)


def opens_reasoning(reply: BaseMessage) -> bool | None:
    """Return whether the model's replies start within a block of reasoning; None if this reply was cut too early."""
    splitter: ReasoningSplitter[None] = ReasoningSplitter()
    splitter.push([(reply.content if isinstance(reply.content, str) else str(reply.text), None)])
    splitter.finish()
    if splitter.implicit or splitter.tokens or reasoning_of(reply):
        return splitter.implicit
    return None if reply.response_metadata.get("finish_reason") == "length" or not reply.text.strip() else False


def reasoning_of(message: BaseMessage) -> str:
    """Return the reasoning outside a message's text: in content blocks or additional fields."""
    blocks = message.content if isinstance(message.content, list) else []
    found = [_said(b) for b in blocks if isinstance(b, Mapping) and b.get("type") in REASONING_BLOCKS]
    if not any(found):
        # Some integrations fill several fields with the same text.
        found = [said for name in _FIELDS if (said := _said(message.additional_kwargs.get(name)))][:1]
    return "".join(found)


def _said(value: Any) -> str:
    """Return the text of any reasoning format: a string, a block, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        names = ("reasoning_content", "thinking", "reasoning", "summary", "content", "text")
        return next((said for name in names if (said := _said(value.get(name)))), "")
    if isinstance(value, Sequence):
        return "".join(_said(part) for part in value)
    return ""


@dataclass
class ReasoningSplitter(Generic[T]):
    """Passes the answer's tokens on and collects the reasoning, while a reply arrives in chunks of any length.

    A mark may be split across chunks; text that may become a mark is held back until that is decided.
    """

    opened: bool = False
    """Whether the reply starts within a block of reasoning."""
    text: str = ""
    """The reasoning so far, without marks."""
    tokens: int = 0
    """Number of tokens of the reasoning."""
    implicit: bool = False
    """Whether a block ended that the reply had not opened."""
    _mode: str = field(init=False)
    _closings: tuple[str, ...] = _CLOSINGS
    _held: list[tuple[str, T]] = field(default_factory=list)
    _passed: str = ""
    """The last characters that were passed on."""
    _open: list[tuple[str, T]] = field(default_factory=list)
    """Tokens passed on since the last block; they turn out to be reasoning if a closing mark follows."""

    def __post_init__(self) -> None:
        self._mode = "reasoning" if self.opened else "start"

    @property
    def within(self) -> bool:
        """Whether a block is open."""
        return self._mode == "reasoning"

    def push(self, tokens: Sequence[tuple[str, T]]) -> tuple[list[tuple[str, T]], bool]:
        """Process the next tokens.

        Returns:
            The tokens that certainly belong to the answer, and whether all tokens passed on since the last block of
            reasoning turned out to be reasoning as well.
        """
        self._held += tokens
        return self._work(over=False)

    def finish(self) -> tuple[list[tuple[str, T]], bool]:
        """Process the end of the reply. Returns the same as `push`."""
        return self._work(over=True)

    def _work(self, *, over: bool) -> tuple[list[tuple[str, T]], bool]:
        out: list[tuple[str, T]] = []
        recalled = False
        while self._held:
            text = "".join(piece for piece, _ in self._held)
            if self._mode == "reasoning":
                if not self._in_reasoning(text, over=over):
                    break
            elif self._mode in ("start", "behind"):
                if not self._at_start(text, over=over):
                    break
            else:
                before = len(self._held), self._mode
                done, back = self._in_answer(text, over=over)
                if back:
                    out, recalled = [], True
                out += done
                if (len(self._held), self._mode) == before and not done:
                    break
        return out, recalled

    def _in_reasoning(self, text: str, *, over: bool) -> bool:
        at, mark = next(iter(_all(text, self._closings)), (-1, ""))
        if at >= 0:
            self._think(self._take(at))
            self._think(self._take(len(mark)), marks=True)
            self._mode, self._closings = "behind", _CLOSINGS
            return True
        self._think(self._take_whole(len(text) if over else len(text) - _undecided(text, self._closings)))
        return False

    def _at_start(self, text: str, *, over: bool) -> bool:
        stripped = text.lstrip()
        blanks = len(text) - len(stripped)
        low = stripped.lower()
        for mark, opening in zip(MARKS, _OPENINGS, strict=True):
            if low.startswith(opening):
                self._take(blanks)
                self._think(self._take(len(opening)), marks=True)
                self._mode, self._closings = "reasoning", (mark.closing.lower(),)
                return True
        header = next((h for h in _HEADERS if low.startswith(h)), None)
        if header is not None and (over or not any(len(h) > len(low) and h.startswith(low) for h in _HEADERS)):
            self._take(blanks)
            self._think(self._take(len(header)), marks=True)
            self._mode = "behind"
            return True
        if not over and (not low or any(m.startswith(low) for m in (*_OPENINGS, *_HEADERS))):
            return False
        if self._mode == "behind":
            self._take(blanks)  # blank lines between reasoning and answer belong to neither
        self._mode = "answer"
        return bool(self._held)

    def _in_answer(self, text: str, *, over: bool) -> tuple[list[tuple[str, T]], bool]:
        for at, mark in _all(text, (*_OPENINGS, *_CLOSINGS)):
            before = (self._passed + text[:at])[-40:]
            after = text[at + len(mark) : at + len(mark) + 1]
            if mark in _OPENINGS:
                if before.rstrip(" \t\r")[-1:] in _SENTENCE_ENDS and before.strip():
                    done = self._pass(self._take(at))
                    self._mode = "start"
                    return done, False
                continue
            if not after and not over:  # the next character decides
                return self._pass(self._take_whole(at)), False
            quoted = before[-1:] in _QUOTES and before
            if not quoted and not (before[-1:] == " " and after == " "):
                self._think(self._open)
                self._think(self._take(at))
                self.implicit = True
                self._think(self._take(len(mark)), marks=True)
                self._open, self._passed, self._mode = [], "", "behind"
                return [], True
        keep = 0 if over else _undecided(text, (*_OPENINGS, *_CLOSINGS))
        return self._pass(self._take_whole(len(text) - keep)), False

    def _pass(self, tokens: list[tuple[str, T]]) -> list[tuple[str, T]]:
        self._open += tokens
        self._passed = (self._passed + "".join(piece for piece, _ in tokens))[-40:]
        return tokens

    def _think(self, tokens: list[tuple[str, T]], *, marks: bool = False) -> None:
        self.tokens += len(tokens)
        if not marks:
            self.text += "".join(piece for piece, _ in tokens)

    def _take(self, characters: int) -> list[tuple[str, T]]:
        taken, self._held = cut_tokens(self._held, characters)
        return taken

    def _take_whole(self, characters: int) -> list[tuple[str, T]]:
        """Take the tokens that end before a character, without cutting a token that may turn out to start a mark."""
        ends = accumulate(len(piece) for piece, _ in self._held)
        count = sum(1 for end in ends if end <= characters)
        taken, self._held = self._held[:count], self._held[count:]
        return taken


def cut_tokens(tokens: Sequence[tuple[str, T]], characters: int) -> tuple[list[tuple[str, T]], list[tuple[str, T]]]:
    """Split tokens at a character. A token that is cut in two appears on both sides."""
    for i, (piece, value) in enumerate(tokens):
        if characters < len(piece) or (characters == 0 and not piece):
            first = [(piece[:characters], value)] if characters else []
            return [*tokens[:i], *first], [(piece[characters:], value), *tokens[i + 1 :]]
        characters -= len(piece)
    return list(tokens), []


def _all(text: str, marks: Sequence[str]) -> list[tuple[int, str]]:
    """Return all marks in a text, in order, ignoring case."""
    low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    found = []
    for mark in marks:
        at = low.find(mark)
        while at >= 0:
            found.append((at, mark))
            at = low.find(mark, at + 1)
    return sorted(found)


def _undecided(text: str, marks: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that may become a mark."""
    low = text.lower()
    longest = max(map(len, marks)) - 1
    return next((n for n in range(min(longest, len(low)), 0, -1) if any(m.startswith(low[-n:]) for m in marks)), 0)
