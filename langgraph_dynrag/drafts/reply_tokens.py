"""Filter a reply's tokens down to those that continue the answer.

A reply may begin with reasoning, repeat text that is already written, start with blank lines, or contain a stop string.
Each token passes through one filter per case, in this order; a filter holds back the tokens that it cannot decide yet.
Pure: a token is its text and a value of the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from langgraph_dynrag.drafts.repetition import repeated_characters
from langgraph_dynrag.drafts.token_alignment import Seam
from langgraph_dynrag.reasoning import ReasoningSplitter, cut_tokens

T = TypeVar("T")


@dataclass
class ReplyTokens(Generic[T]):
    """Filters one reply token by token."""

    written: str = ""
    """The text that the reply continues."""
    stop: tuple[str, ...] = ()
    seam: Seam | None = None
    """How the reply is joined to `written`; None if it continues that text token for token and repeats nothing."""
    phrase: str | None = None
    """The phrase that introduces the short answer, if any."""
    opened: bool = False
    """Whether the prompt ends inside a reasoning block."""
    waits: bool = False
    """Whether the prompt may end inside one, so that nothing is decided until the reasoning or the reply has ended."""
    marked: bool = True
    """Whether reasoning marks delimit reasoning; if not, they are ordinary text."""
    repeated: str = ""
    """The beginning of the reply that was cut because it repeats `written`."""
    stopped: bool = False
    """Whether a stop string was found."""
    splitter: ReasoningSplitter[T] = field(init=False)
    _undecided: list[tuple[str, T]] = field(default_factory=list)
    _compares: bool = field(init=False)
    _begun: bool = False
    _blanks: list[tuple[str, T]] = field(default_factory=list)
    _held: list[tuple[str, T]] = field(default_factory=list)
    _waiting: list[tuple[str, T]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.splitter = ReasoningSplitter(opened=self.opened)
        # If reasoning is part of the text, so are searches, and a repeated search has to be seen.
        self._compares = self.marked and self.seam is not None and bool(self.written.strip())

    def push(self, tokens: Sequence[tuple[str, T]]) -> tuple[list[tuple[str, T]], bool]:
        """Add tokens of the reply.

        Returns:
            The tokens that are now certain to continue the answer, and whether all tokens returned earlier turned out
            to be reasoning.
        """
        return self._steps(tokens, over=False)

    def finish(self, *, cut_off: bool = False) -> tuple[list[tuple[str, T]], bool]:
        """Return the remaining tokens once the reply has ended; `cut_off` says that it ran into a limit."""
        return self._steps((), over=True, cut_off=cut_off)

    def _steps(
        self, tokens: Sequence[tuple[str, T]], *, over: bool, cut_off: bool = False
    ) -> tuple[list[tuple[str, T]], bool]:
        if self.stopped:
            return [], False
        recalled = False
        if self.marked:
            tokens, recalled = self.splitter.push(tokens)
            if over:
                more, again = self.splitter.finish()
                tokens, recalled = ([] if again else list(tokens)) + more, recalled or again
        if recalled:
            self._undecided, self._held, self._waiting, self._begun = [], [], [], False
            self._compares = self.seam is not None and bool(self.written.strip())
        if self.waits and not over and not self.splitter.tokens:
            self._waiting += tokens
            return [], recalled
        tokens, self._waiting = [*self._waiting, *tokens], []
        return self._stop(
            self._join(self._compare(list(tokens), over=over, cut_off=cut_off), over=over), over=over
        ), recalled

    def _compare(self, tokens: list[tuple[str, T]], *, over: bool, cut_off: bool) -> list[tuple[str, T]]:
        if not self._compares:
            return tokens
        assert self.seam is not None
        self._undecided += tokens
        reply = "".join(piece for piece, _ in self._undecided)
        if not reply:
            return []
        same = repeated_characters(
            self.written,
            reply,
            over=over,
            cut_off=cut_off,
            continues=self.seam.reply == "continues",
            phrase=self.phrase,
        )
        if same is None:
            return []
        gone, tokens = cut_tokens(self._undecided, same)
        self.repeated = "".join(piece for piece, _ in gone)
        self._undecided, self._compares = [], False
        if same and tokens and tokens[0][0][:1].isalnum() and self.written[-1:].isalnum():
            self._begun = True  # the reply continues inside a word
        return tokens

    def _join(self, tokens: list[tuple[str, T]], *, over: bool) -> list[tuple[str, T]]:
        """Adjust the whitespace between the written text and the reply; it may span several tokens."""
        fresh = not self.written.strip() or bool(self.splitter.tokens)
        if self._begun or not tokens or (self.seam is None and not fresh):
            return tokens
        tokens = [*self._held_blanks(), *tokens]
        text = "".join(piece for piece, _ in tokens)
        blanks = len(text) - len(text.lstrip())
        if blanks == len(text) and not over:
            self._blanks = tokens
            return []
        self._begun = True
        fresh = fresh or (self.seam is not None and self.seam.reply == "answers")
        # A reply that is a separate message loses nothing when its leading blank lines are dropped.
        opens = fresh and "\n" in text[:blanks] and bool(self.stop or self.splitter.tokens)
        if opens or (self.seam is not None and self.seam.blanks):
            tokens = cut_tokens(tokens, blanks)[1]
        if self.seam is not None and tokens:
            bare = "".join(piece for piece, _ in tokens)
            more = len(self.seam.joined(bare)) - len(bare)
            if more > 0:
                tokens[0] = (" " * more + tokens[0][0], tokens[0][1])
        return tokens

    def _held_blanks(self) -> list[tuple[str, T]]:
        held, self._blanks = self._blanks, []
        return held

    def _stop(self, tokens: list[tuple[str, T]], *, over: bool) -> list[tuple[str, T]]:
        if not self.stop:
            return tokens
        self._held += tokens
        text = "".join(piece for piece, _ in self._held)
        begins = [at for s in self.stop if (at := text.find(s)) >= 0]
        if begins:
            self.stopped = True
            kept, self._held = cut_tokens(self._held, min(begins))[0], []
            return kept
        undecided = 0 if over else max(_overlap(text, s) for s in self.stop)
        end = taken = 0
        while taken < len(self._held) and end + len(self._held[taken][0]) <= len(text) - undecided:
            end += len(self._held[taken][0])
            taken += 1
        sure, self._held = self._held[:taken], self._held[taken:]
        return sure


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
