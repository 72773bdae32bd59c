"""Decide after each token whether a draft is complete. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from langgraph_dynrag.drafts.draft import Draft, EndOfDraft
from langgraph_dynrag.drafts.reply_tokens import ReplyTokens
from langgraph_dynrag.drafts.tasks import DraftTask
from langgraph_dynrag.drafts.token_alignment import Seam
from langgraph_dynrag.short_answer import is_complete


@dataclass
class StopAtUnit:
    """Decides after each token whether the draft is complete, and records why in `ended`."""

    task: DraftTask
    ended: EndOfDraft | None = None
    _text: str = field(init=False)
    _pieces: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Discard all tokens after the carried ones."""
        self.ended = None
        self._pieces = list(self.task.carried.pieces)
        self._text = self.task.carried.text

    def __call__(self, piece: str) -> bool:
        """Add the next token's text and return whether the draft is complete."""
        self._pieces.append(piece)
        self._text += piece
        phrase = self.task.answer_phrase
        if phrase is not None and is_complete(self._tail() + self._text, phrase, self.task.answer_end):
            self.ended = "end"
        elif self._unit_is_complete(piece):
            self.ended = "unit"
        elif len(self._pieces) - len(self.task.carried) > self.task.limit:  # the request allows more, for reasoning
            self.ended = "limit"
        elif time.monotonic() >= self.task.deadline:
            self.ended = "deadline"
        return self.ended is not None

    def _tail(self) -> str:
        # The phrase may begin in the accepted text; anything further back was checked before.
        own = self.task.own_words
        return (self.task.accepted if own is None else own)[-200:]

    def _unit_is_complete(self, piece: str) -> bool:
        if self.task.unit.kind == "sentence" and not piece:
            return False
        return self.task.unit.length(Draft(tuple(self._pieces))) is not None

    def __repr__(self) -> str:  # shown in traces, as an option of the call
        return f"StopAtUnit({self.task.unit})"


class WatchReply:
    """A `StopAtUnit` for in-process models, called with every token including those of reasoning."""

    def __init__(self, task: DraftTask, rule: StopAtUnit, *, opened: bool) -> None:
        self._task = task
        self._rule = rule
        self._tokens: ReplyTokens[None] = reply_tokens(task, None, opened=opened)

    def __call__(self, piece: str) -> bool:
        """Add the next token's text and return whether generation should stop."""
        tokens, recalled = self._tokens.push([(piece, None)])
        if recalled:
            self._rule.restart()
        for text, _ in tokens:
            if self._rule.ended is None:
                self._rule(text)
        if self._rule.ended is None:
            self._rule.ended = ended_by(self._tokens, self._task, within=self._tokens.splitter.within)
        return self._rule.ended is not None

    def __repr__(self) -> str:
        return repr(self._rule)


def reply_tokens(task: DraftTask, seam: Seam | None, *, opened: bool, waits: bool = False) -> ReplyTokens[Any]:
    """Create the `ReplyTokens` filter for a task."""
    return ReplyTokens(
        task.accepted + task.carried.text,
        task.stop,
        seam,
        task.answer_phrase if task.closing else None,
        opened=opened,
        waits=waits,
        marked=task.reasoning_apart,
    )


def ended_by(reply: ReplyTokens[Any], task: DraftTask, apart: int = 0, *, within: bool) -> EndOfDraft | None:
    """Return why reading can stop (a stop string, or the reasoning budget is spent), or None to continue."""
    if reply.stopped:
        return "end"
    spent = apart + reply.splitter.tokens
    return "limit" if within and spent > max(task.reasoning_tokens, task.limit) else None
