"""Collecting a draft from a chat model's stream, and knowing when it has gone far enough.

Pure: a collector is fed what a stream brings; the synchronous and the asynchronous loops around it are the
generator's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from langgraph_dynrag.alternatives import entropy_of_entry
from langgraph_dynrag.answer import is_complete
from langgraph_dynrag.chat_template import message_text
from langgraph_dynrag.clean_input import clean_models
from langgraph_dynrag.draft import AttentionRows, Draft, EndOfDraft, Floats, Signal, Unit
from langgraph_dynrag.token_texts import Seam, TokenTexts

OnToken = Callable[[str, float | None, float | None], None]
"""Called with each new token's characters, log-probability and entropy."""


@dataclass(frozen=True)
class DraftTask:
    """What the next draft is to be."""

    question: str
    messages: Sequence[BaseMessage]
    """The conversation up to the answer."""
    accepted: str
    """The answer so far, to be continued."""
    accepted_ids: tuple[int, ...] | None
    """Its token ids, if the model told them."""
    carried: Draft
    """Tokens that were drafted beyond the last accepted unit, and still hold."""
    carried_attention: AttentionRows | None
    unit: Unit
    limit: int
    """Tokens that may be generated now."""
    needs: frozenset[Signal]
    stop: tuple[str, ...] = ()
    answer_phrase: str | None = None
    answer_end: str | None = None
    own_words: str | None = None
    """The accepted text without what was inserted into it, where that differs."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock."""
    seed: int | None = None
    adapters: Any = None
    """The engine's adapter set that the draft is written with; None: the base model."""

    @property
    def open_answer(self) -> AIMessage:
        """What the model is to continue: accepted and carried text, with their token ids if known."""
        metadata: dict[str, Any] = {}
        if self.accepted_ids is not None and (self.carried.token_ids is not None or not len(self.carried)):
            metadata = {"dynprag": {"token_ids": [*self.accepted_ids, *(self.carried.token_ids or ())]}}
        return AIMessage(self.accepted + self.carried.text, response_metadata=metadata)


@dataclass(frozen=True)
class DraftResult:
    """A draft with its attention, and what it cost."""

    draft: Draft
    attention: AttentionRows | None = None
    cost: dict[str, int] = field(default_factory=dict)
    """`prompt_tokens`, and of a local model `forward_tokens` and `cached_tokens`."""


@dataclass(frozen=True)
class Reply:
    """The model's reply to an instruction, and what it cost."""

    text: str
    cost: dict[str, int] = field(default_factory=dict)
    """`prompt_tokens` and `generated_tokens`, and of a local model `forward_tokens` and `cached_tokens`; as far as they
    were told."""

    @classmethod
    def of(cls, message: BaseMessage) -> Reply:
        """What a chat model returned."""
        usage = getattr(message, "usage_metadata", None) or {}
        told = {"prompt_tokens": usage.get("input_tokens"), "generated_tokens": usage.get("output_tokens")}
        own = message.response_metadata.get("dynprag", {})
        told |= {name: own.get(name) for name in ("forward_tokens", "cached_tokens")}
        return cls(message_text(message), {name: n for name, n in told.items() if n is not None})


@dataclass
class StopAtUnit:
    """Says after each token whether the draft has gone far enough, and why."""

    task: DraftTask
    ended: EndOfDraft | None = None
    _text: str = field(init=False)
    _pieces: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._pieces = list(self.task.carried.pieces)
        self._text = self.task.carried.text

    def __call__(self, piece: str) -> bool:
        """Take note of the next token's characters."""
        self._pieces.append(piece)
        self._text += piece
        phrase = self.task.answer_phrase
        if phrase is not None and is_complete(self._tail() + self._text, phrase, self.task.answer_end):
            self.ended = "end"
        elif self._unit_is_complete(piece):
            self.ended = "unit"
        elif time.monotonic() >= self.task.deadline:
            self.ended = "deadline"
        return self.ended is not None

    def _tail(self) -> str:
        # The phrase may begin in the accepted text; what lies further back was looked at before.
        own = self.task.own_words
        return (self.task.accepted if own is None else own)[-200:]

    def _unit_is_complete(self, piece: str) -> bool:
        if self.task.unit.kind == "sentence" and not piece:
            return False
        return self.task.unit.length(Draft(tuple(self._pieces))) is not None

    def __repr__(self) -> str:  # appears in traces, as an option of the call
        return f"StopAtUnit({self.task.unit})"


@dataclass(frozen=True, slots=True)
class _Reported:
    """What came with a token."""

    logprob: float | None = None
    entropy: float | None = None


class Collector:
    """Builds a draft out of message chunks.

    Args:
        task: What is drafted.
        rule: Says why the draft ended.
        on_token: Called with each token.
        seam: How the first characters are joined to what was written before; None: as they are.
    """

    def __init__(self, task: DraftTask, rule: StopAtUnit, on_token: OnToken | None, seam: Seam | None = None) -> None:
        self._task = task
        self._rule = rule
        self._on_token = on_token
        self._texts: TokenTexts[_Reported] = TokenTexts(seam)
        self._pieces: list[str] = []
        self._reported: list[_Reported] = []
        self._ids: list[int] = []
        self._rows: list[Any] = []
        self._finish: str | None = None
        self._cost: dict[str, int] = {}

    @property
    def finish_reason(self) -> str | None:
        """As the stream told it; None while it has not ended."""
        return self._finish

    def push(self, chunk: AIMessageChunk | AIMessage) -> None:
        """Take the tokens of one chunk (of any number)."""
        chunk = clean_models(chunk, "the model's reply")
        metadata = chunk.response_metadata
        own = metadata.get("dynprag", {})
        entries = (metadata.get("logprobs") or {}).get("content") or []
        entropies = own.get("entropies") or [None] * len(entries)
        if "entropy" in self._task.needs and entries and not own.get("entropies"):
            entropies = [entropy_of_entry(e) for e in entries]
        text = _text(chunk)
        tokens = [
            (str(e["token"]), _Reported(float(e["logprob"]), entropies[i] if i < len(entropies) else None))
            for i, e in enumerate(entries)
        ]
        if not entries and text and not self._texts.waiting:
            tokens = [(text, _Reported())]
        self._take(self._texts.push(tokens, text))
        self._ids += own.get("token_ids", [])
        self._rows += [row.weights for row in own.get("attention", [])]
        if metadata.get("finish_reason"):
            self._finish = str(metadata["finish_reason"])
        usage = getattr(chunk, "usage_metadata", None)
        if usage:
            self._cost["prompt_tokens"] = usage["input_tokens"]
        self._cost |= {name: own[name] for name in ("forward_tokens", "cached_tokens") if name in own}

    def result(self) -> DraftResult:
        """The draft, carried tokens first.

        A token whose log-probability was needed and did not come counts as sure, so that it starts no retrieval;
        `cost["tokens_without_logprobs"]` tells how many there were.
        """
        if self._rule.ended is None:  # else what has no text yet lies beyond the unit
            self._take(self._texts.finish())
            if self._texts.unclaimed:
                self._take([(self._texts.unclaimed, _Reported())])
        if self._task.unit.kind == "until" and len(self._ids) != len(self._pieces):
            self._cut_behind_mark()
        n = len(self._pieces)
        needs, known = self._task.needs, [r for r in self._reported if r.logprob is not None]
        cost = dict(self._cost)
        if needs and len(known) < n:
            cost["tokens_without_logprobs"] = n - len(known)
        told = bool(known) or bool(needs)
        fresh = Draft(
            tuple(self._pieces),
            tuple(0.0 if r.logprob is None else r.logprob for r in self._reported) if told else (),
            tuple(r.entropy or 0.0 for r in self._reported) if "entropy" in needs else None,
            tuple(self._ids) if len(self._ids) == n else None,
            self._ended(),
        )
        attention = self._attention() if self._rows else None
        return DraftResult(self._task.carried + fresh, attention, cost)

    def _take(self, tokens: Sequence[tuple[str, _Reported]]) -> None:
        for piece, reported in tokens:
            self._pieces.append(piece)
            self._reported.append(reported)
            if self._on_token is not None:
                self._on_token(piece, reported.logprob, reported.entropy)

    def _cut_behind_mark(self) -> None:
        """Drop what a chunk brought beyond the mark that ends the unit: some models give whole replies in one."""
        until, before = self._task.unit.until, self._task.carried.text
        at = (before + "".join(self._pieces)).find(until)
        left = at + len(until) - len(before)
        if at < 0 or left >= sum(map(len, self._pieces)):
            return
        kept = []
        for piece in self._pieces:
            if left <= 0:
                break
            kept.append(piece[:left])
            left -= len(piece)
        self._pieces = kept
        self._reported = self._reported[: len(kept)]
        self._rule.ended = "unit"

    def _ended(self) -> EndOfDraft:
        if self._rule.ended is not None:
            return self._rule.ended
        return "limit" if self._finish == "length" else "end"

    def _attention(self) -> AttentionRows:
        carried = len(self._task.carried)
        start = self._rows[0].shape[1] - carried  # the first row reaches up to the last known token
        mean = tuple(row.mean(axis=0) for row in self._rows)
        heads = tuple(row[:, start:].copy() for row in self._rows)
        if self._task.carried_attention is not None and carried:
            return self._task.carried_attention.continued(mean, heads)
        return AttentionRows(start, mean, heads)


def rows_from_scores(weights: Floats, prompt: int) -> AttentionRows:
    """Attention rows of a draft that was scored in one forward.

    Args:
        weights: (heads, tokens + 1, prompt + tokens), as the engine's `score` gives them.
        prompt: Tokens before the draft.
    """
    mean = weights.mean(axis=0)
    count = weights.shape[1]
    return AttentionRows(
        prompt,
        tuple(mean[t, : prompt + t] for t in range(count)),
        tuple(weights[:, t, prompt : prompt + t] for t in range(count)),
    )


def _text(chunk: AIMessageChunk | AIMessage) -> str:
    return chunk.content if isinstance(chunk.content, str) else str(chunk.text)
