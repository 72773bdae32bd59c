"""Align a reply's tokens with its characters.

A server reports the text of a reply and, separately, its tokens. The two differ: a character of several tokens appears
broken in each of them, an end-of-sequence token or a stop string has no text, and text is held back while it may become
a stop string. The answer is built from the text, so tokens are aligned with it as it arrives.

`Seam` says how a reply is joined to the text before it, whose trailing whitespace it may repeat or lack.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_PATIENCE = 16
"""Number of tokens that may wait for their text. Beyond it, tokens are assigned anyway, so that servers whose tokens
are not substrings of their text work too."""


@dataclass(frozen=True, slots=True)
class Seam:
    """How a reply is joined to the text written before it.

    A model that *continues* its own text emits the whitespace itself; whitespace that the text already ends with is
    dropped. A model that *answers* a request to continue begins a new message, so a space is inserted between two
    words.
    """

    written: str
    reply: Literal["continues", "answers"]

    @property
    def blanks(self) -> str:
        """Whitespace that the written text ends with."""
        return self.written[len(self.written.rstrip()) :] if self.written.strip() else ""

    def joined(self, text: str) -> str:
        """Return the beginning of the reply as it follows the written text."""
        if self.blanks:
            return text.lstrip()
        if not self.written.strip():
            return text
        opens = text[:1].isalnum() or text[:1] in "\"'“‘(["
        return f" {text}" if self.reply == "answers" and opens else text


@dataclass
class TokenTexts(Generic[T]):
    """Aligns tokens with a text that arrives in differently sized pieces.

    Each token carries a value of the caller's, such as its log-probability, and is returned with its characters.
    """

    _waiting: deque[tuple[str, T]] = field(default_factory=deque)
    _text: str = ""

    def push(self, tokens: list[tuple[str, T]], text: str) -> list[tuple[str, T]]:
        """Add the reported tokens and the text of one chunk.

        Returns:
            The tokens whose characters are now certain, in order, with these characters.
        """
        self._waiting.extend(tokens)
        self._text += text
        done: list[tuple[str, T]] = []
        while self._waiting and self._step(done):
            pass
        return done

    def finish(self) -> list[tuple[str, T]]:
        """Return the remaining tokens once the text has ended.

        Tokens without text (an end of sequence, a stop string) are left out; those of a broken character are kept.
        """
        done: list[tuple[str, T]] = []
        while self._waiting:
            shown, value = self._waiting.popleft()
            rest = bool(self._waiting) and self._text.startswith(shown)
            piece = shown if rest else self._text
            self._text = self._text[len(piece) :]
            if piece or not shown or _BROKEN in shown:
                done.append((piece, value))
        return done

    @property
    def unclaimed(self) -> str:
        """Text not assigned to a token yet."""
        return self._text

    @property
    def waiting(self) -> int:
        """Number of tokens without text yet."""
        return len(self._waiting)

    def _step(self, done: list[tuple[str, T]]) -> bool:
        """Assign characters to at least one token if possible."""
        shown, value = self._waiting[0]
        if self._text.startswith(shown):
            self._waiting.popleft()
            self._text = self._text[len(shown) :]
            done.append((shown, value))
            return True
        if _BROKEN not in shown and shown.startswith(self._text) and len(self._waiting) <= _PATIENCE:
            return False  # the rest of its text may be held back
        # A broken character or a token that is not in the text: take everything up to the next token that is.
        for j in range(1, len(self._waiting)):
            nxt = self._waiting[j][0]
            if nxt and _BROKEN not in nxt and (at := self._text.find(nxt)) >= 0:
                return self._give(j, at, done)
        if len(self._waiting) > _PATIENCE:
            return self._give(len(self._waiting), len(self._text), done)
        return False

    def _give(self, count: int, length: int, done: list[tuple[str, T]]) -> bool:
        """Assign the next `length` characters to the last of `count` tokens; the others complete no character."""
        for i in range(count):
            _, value = self._waiting.popleft()
            done.append((self._text[:length] if i == count - 1 else "", value))
        self._text = self._text[length:]
        return True
