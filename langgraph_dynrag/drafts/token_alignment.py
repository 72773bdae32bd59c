"""Which characters of a reply each of its tokens stands for.

A server reports the text of a reply and, beside it, its tokens. The two differ: a character of several tokens is shown
broken in each of them, an end-of-sequence or a stop string is a token and no text, and text is held back while it may
become a stop string. The text is what the answer is made of, so tokens are laid along it as it comes.

`Seam` says how a reply is joined to what was written before, whose blank at the end it may repeat or lack.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_PATIENCE = 16
"""Tokens that may wait for their text; more do not, so that a server whose tokens are no pieces of its text is
followed all the same."""


@dataclass(frozen=True, slots=True)
class Seam:
    """How a reply is joined to what was written before it.

    A model that *continues* its own text brings its own blanks; those that the text already ends with are dropped. A
    model that was *asked again* begins as one begins a message, so a blank is put between two words.
    """

    written: str
    reply: Literal["continues", "answers"]

    @property
    def blanks(self) -> str:
        """With which the written text ends."""
        return self.written[len(self.written.rstrip()) :] if self.written.strip() else ""

    def joined(self, text: str) -> str:
        """The reply's first characters as they follow what was written."""
        if self.blanks:
            return text.lstrip()
        if not self.written.strip():
            return text
        opens = text[:1].isalnum() or text[:1] in "\"'“‘(["
        return f" {text}" if self.reply == "answers" and opens else text


@dataclass
class TokenTexts(Generic[T]):
    """Lays tokens along a text that arrives in pieces of its own.

    Each token comes with something of the caller's (its log-probability, say), and is given back with its characters.
    """

    _waiting: deque[tuple[str, T]] = field(default_factory=deque)
    _text: str = ""

    def push(self, tokens: list[tuple[str, T]], text: str) -> list[tuple[str, T]]:
        """Take what a chunk brings: reported tokens, and text.

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
        """The tokens that are left when no more text comes.

        Tokens without a character of text (an end of sequence, a stop string) are left out; those of a broken
        character stay.
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
        """Text that no token stands for yet."""
        return self._text

    @property
    def waiting(self) -> int:
        """Tokens that have no text yet."""
        return len(self._waiting)

    def _step(self, done: list[tuple[str, T]]) -> bool:
        """Give at least one token its characters, if that can be."""
        shown, value = self._waiting[0]
        if self._text.startswith(shown):
            self._waiting.popleft()
            self._text = self._text[len(shown) :]
            done.append((shown, value))
            return True
        if _BROKEN not in shown and shown.startswith(self._text) and len(self._waiting) <= _PATIENCE:
            return False  # the rest of its text may be held back
        # A broken character, or what is no piece of the text: up to the next token that is one.
        for j in range(1, len(self._waiting)):
            nxt = self._waiting[j][0]
            if nxt and _BROKEN not in nxt and (at := self._text.find(nxt)) >= 0:
                return self._give(j, at, done)
        if len(self._waiting) > _PATIENCE:
            return self._give(len(self._waiting), len(self._text), done)
        return False

    def _give(self, count: int, length: int, done: list[tuple[str, T]]) -> bool:
        """The next `length` characters to the last of `count` tokens; the others complete none."""
        for i in range(count):
            _, value = self._waiting.popleft()
            done.append((self._text[:length] if i == count - 1 else "", value))
        self._text = self._text[length:]
        return True
