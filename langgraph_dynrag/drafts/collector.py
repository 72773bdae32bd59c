"""Collect a draft from a chat model's stream and decide when it is complete.

Pure: a collector is given a stream's chunks; the sync and async loops belong to the generator. Reasoning, repetitions
and text after a stop string are kept out of the draft and reported separately.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from langgraph_dynrag.clean_input import clean_models
from langgraph_dynrag.drafts.draft import AttentionRows, Draft, EndOfDraft, Floats
from langgraph_dynrag.drafts.reply_tokens import ReplyTokens
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit, ended_by, reply_tokens
from langgraph_dynrag.drafts.tasks import DraftCost, DraftResult, DraftTask, NoText, OnToken
from langgraph_dynrag.drafts.token_alignment import Seam, TokenTexts
from langgraph_dynrag.drafts.topk_entropy import entropy_of_entry
from langgraph_dynrag.reasoning import reasoning_of

_HELD_BACK = 16
"""Number of tokens that a server may report before their text, which it holds back as a possible stop string."""
_SILENT = 2
"""Number of chunks that may be empty (the role, an end of sequence). More than that are reasoning that was not passed
on."""


@dataclass(frozen=True, slots=True)
class _Reported:
    """Signals reported with a token."""

    logprob: float | None = None
    entropy: float | None = None
    token_id: int | None = None
    row: int | None = None
    """Index of its attention row among all rows received."""


class Collector:
    """Builds a draft from message chunks.

    Args:
        task: The draft to generate.
        rule: Decides when the draft ends, and records why.
        on_token: Called with each token.
        seam: How the beginning of the reply is joined to the text written before; None to append it token for token.
        opened: Whether the prompt ends inside a reasoning block.
        watched: Whether the collector calls the rule with each token; if not, the model calls it.
    """

    def __init__(
        self,
        task: DraftTask,
        rule: StopAtUnit,
        on_token: OnToken | None,
        seam: Seam | None = None,
        *,
        opened: bool = False,
        watched: bool = False,
    ) -> None:
        self._task = task
        self._rule = rule
        self._on_token = on_token
        self._watched = watched
        self._texts: TokenTexts[_Reported] = TokenTexts()
        self._reads_on = watched and task.reasoning_apart and task.opens is not False
        self._reply: ReplyTokens[_Reported] = reply_tokens(task, seam, opened=opened, waits=self._reads_on)
        self._early: list[tuple[str, _Reported]] | None = []
        self._apart = ""
        self._apart_tokens = 0
        self._silent = 0
        self._pieces: list[str] = []
        self._reported: list[_Reported] = []
        self._rows: list[Any] = []
        self._finish: str | None = None
        self._cost: DraftCost = {}

    @property
    def finish_reason(self) -> str | None:
        """Finish reason that the stream reported; None until it has ended."""
        return self._finish

    def push(self, chunk: AIMessageChunk | AIMessage) -> None:
        """Add the tokens of one chunk, which may hold any number of them."""
        chunk = clean_models(chunk, "the model's reply")
        metadata = chunk.response_metadata or {}
        text = chunk.content if isinstance(chunk.content, str) else str(chunk.text)
        tokens = self._entries(metadata)
        apart = reasoning_of(chunk)
        self._apart += apart
        if metadata.get("finish_reason"):
            self._finish = str(metadata["finish_reason"])
        self._count(chunk, metadata.get("dynprag") or {})
        tokens = self._without_reasoning(tokens, text, apart)
        if not tokens and text and not self._texts.waiting:
            tokens = [(text, _Reported())]
        if tokens or text:
            self._take(*self._reply.push(self._texts.push(tokens, text)))
        if self._watched and self._rule.ended is None:
            beside = 0 if self._early is None else max(self._apart_tokens, len(self._early))
            within = self._reply.splitter.within or bool(beside and not self._pieces)
            self._rule.ended = ended_by(self._reply, self._task, beside, within=within)
            if self._rule.ended is None and self._reads_on and time.monotonic() >= self._task.deadline:
                self._rule.ended = "deadline"

    def result(self) -> DraftResult:
        """Return the draft, carried tokens first, together with the parts of the reply that do not belong to it.

        A token whose log-probability was needed but not reported counts as certain, so that it triggers no retrieval;
        `cost["tokens_without_logprobs"]` counts these tokens.
        """
        if self._rule.ended is None:  # otherwise tokens without text lie beyond the unit
            self._finish_reply()
        if self._task.unit.kind == "until" and any(r.token_id is None for r in self._reported):
            self._cut_behind_mark()
        opens = self._reply.splitter.implicit if self._reads_on else None
        if self._task.opens and not self._reply.splitter.tokens and self._finish == "length":
            self._apart += "".join(self._pieces)  # cut off inside the reasoning block that it began in
            self._apart_tokens += len(self._pieces)
            self._pieces, self._reported, opens = [], [], True
        if self._rule.ended == "limit":
            self._pieces, self._reported = self._pieces[: self._task.limit], self._reported[: self._task.limit]
        n = len(self._pieces)
        needs, known = self._task.needs, [r for r in self._reported if r.logprob is not None]
        cost = self._cost.copy()
        if needs and len(known) < n:
            cost["tokens_without_logprobs"] = n - len(known)
        told = bool(known) or bool(needs)
        ids = [r.token_id for r in self._reported if r.token_id is not None]
        fresh = Draft(
            tuple(self._pieces),
            tuple(0.0 if r.logprob is None else r.logprob for r in self._reported) if told else (),
            tuple(r.entropy or 0.0 for r in self._reported) if "entropy" in needs else None,
            tuple(ids) if len(ids) == n else None,
            self._ended(),
        )
        thoughts, reasoning_tokens = self._reasoning()
        if reasoning_tokens:
            cost["reasoning_tokens"] = reasoning_tokens
        text = "".join(self._pieces).strip() or bool(n and ids)  # ids without text are the start of a character
        problem = None if text else self._problem(reasoning_tokens)
        repeated, attention = self._reply.repeated, self._attention()
        return DraftResult(self._task.carried + fresh, attention, cost, thoughts, repeated, problem, opens)

    # ------------------------------------------------------------------------------------------- what a chunk brings

    def _entries(self, metadata: dict[str, Any]) -> list[tuple[str, _Reported]]:
        own = metadata.get("dynprag") or {}
        entries = (metadata.get("logprobs") or {}).get("content") or []
        entropies = own.get("entropies") or [None] * len(entries)
        if "entropy" in self._task.needs and entries and not own.get("entropies"):
            entropies = [entropy_of_entry(e) for e in entries]
        ids, rows = own.get("token_ids") or [], own.get("attention") or []
        first_row = len(self._rows)
        self._rows += [row.weights for row in rows]
        return [
            (
                str(e["token"]),
                _Reported(
                    float(e["logprob"]),
                    _at(entropies, i),
                    _at(ids, i),
                    first_row + i if i < len(rows) else None,
                ),
            )
            for i, e in enumerate(entries)
        ]

    def _count(self, chunk: AIMessageChunk | AIMessage, own: dict[str, Any]) -> None:
        usage = getattr(chunk, "usage_metadata", None) or {}
        if usage.get("input_tokens") is not None:
            self._cost["prompt_tokens"] = usage["input_tokens"]
        reasoning = (usage.get("output_token_details") or {}).get("reasoning")
        if reasoning:
            self._apart_tokens = max(self._apart_tokens, int(reasoning))
        if own.get("forward_tokens") is not None:
            self._cost["forward_tokens"] = own["forward_tokens"]
        if own.get("cached_tokens") is not None:
            self._cost["cached_tokens"] = own["cached_tokens"]

    def _without_reasoning(
        self, tokens: list[tuple[str, _Reported]], text: str, apart: str
    ) -> list[tuple[str, _Reported]]:
        """Return the tokens that stand for text of the answer, as far as that is known.

        Servers that send reasoning in a separate field report its tokens along with the others, and some clients do not
        pass that field on.
        """
        if any(reported.token_id is not None for _, reported in tokens):
            self._early = None  # an in-process model: its tokens are its text
        if self._early is None:
            if not apart or text:
                return tokens
            self._apart_tokens += max(len(tokens), 1)
            return []
        self._early += tokens
        if not text:
            if not tokens and not apart:
                self._silent += 1
            elif apart and not tokens:
                self._apart_tokens += 1
            return []
        early, self._early = self._early, None
        if self._silent > _SILENT:
            self._apart_tokens += self._silent
        at = _first_of_text([token for token, _ in early], text)
        self._drop(early[:at], apart)
        return early[at:]

    def _drop(self, tokens: Sequence[tuple[str, _Reported]], apart: str = "") -> None:
        """Record tokens of reasoning."""
        self._apart_tokens = max(self._apart_tokens, len(tokens))
        if tokens and not self._apart and not apart:
            self._apart = "".join(token for token, _ in tokens)

    def _finish_reply(self) -> None:
        # If the text may still turn out to be reasoning, it is read to its end, whatever units it contains.
        may_be_reasoning = self._reads_on and not self._reply.splitter.tokens and not self._apart_tokens
        self._watched = self._watched and not may_be_reasoning
        if self._early is not None and len(self._early) > _SILENT:
            self._drop(self._early)
        elif self._early is not None and self._silent > _SILENT:
            self._apart_tokens += self._silent
        self._take(*self._reply.push(self._texts.finish()))
        if self._texts.unclaimed:
            self._take(*self._reply.push([(self._texts.unclaimed, _Reported())]))
        self._take(*self._reply.finish(cut_off=self._finish == "length"))

    def _take(self, tokens: Sequence[tuple[str, _Reported]], recalled: bool) -> None:
        if recalled:
            self._pieces, self._reported = [], []
            if self._watched:
                self._rule.restart()
        for piece, reported in tokens:
            self._pieces.append(piece)
            self._reported.append(reported)
            if self._watched and self._rule.ended is None:
                self._rule(piece)
            if self._on_token is not None:
                self._on_token(piece, reported.logprob, reported.entropy)

    # ------------------------------------------------------------------------------------------- what came of it

    def _reasoning(self) -> tuple[str, int]:
        splitter = self._reply.splitter
        if self._apart and self._early:
            self._drop(self._early)
        thoughts = self._apart + splitter.text
        tokens = self._apart_tokens + splitter.tokens
        if thoughts and tokens <= 1:  # it arrived in one piece
            tokens = max(tokens, len(thoughts) // 4 + 1)
        return thoughts.strip(), tokens

    def _problem(self, reasoning_tokens: int) -> NoText:
        if self._reply.repeated.strip():
            return "cut off while repeating" if self._finish == "length" else "only what was written"
        if reasoning_tokens:
            return "only reasoning"
        return "cut off before any text" if self._finish == "length" else "no text"

    def _cut_behind_mark(self) -> None:
        """Drop text after the mark that ends the unit; some models return a whole reply in one chunk."""
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
        if self._reply.stopped:
            return "end"
        return "limit" if self._finish == "length" else "end"

    def _attention(self) -> AttentionRows | None:
        """Return the attention rows of the draft's tokens and of its last token itself; None if any are missing."""
        carried, n = len(self._task.carried), len(self._reported)
        at = [r.row for r in self._reported]
        first = at[0] if at else 0
        if not self._rows or first is None or at != list(range(first, first + n)) or (first and carried):
            return None
        rows = self._rows[first : first + n + 1]
        if len(rows) <= n and at:
            return None
        start = rows[0].shape[1] - carried  # the first row covers everything up to the last known token
        mean = tuple(row.mean(axis=0) for row in rows)
        heads = tuple(row[:, start:].copy() for row in rows)
        if self._task.carried_attention is not None and carried:
            return self._task.carried_attention.continued(mean, heads)
        return AttentionRows(start, mean, heads)


def rows_from_scores(weights: Floats, prompt: int) -> AttentionRows:
    """Return the attention rows of a draft that was scored in one forward pass.

    Args:
        weights: (heads, tokens + 1, prompt + tokens), as returned by the engine's `score`.
        prompt: Number of tokens before the draft.
    """
    mean = weights.mean(axis=0)
    count = weights.shape[1]
    return AttentionRows(
        prompt,
        tuple(mean[t, : prompt + t] for t in range(count)),
        tuple(weights[:, t, prompt : prompt + t] for t in range(count)),
    )


def _first_of_text(tokens: Sequence[str], text: str) -> int:
    """Return the index of the token that a text begins with, among those reported with it or before it."""
    if len(tokens) <= _HELD_BACK:
        joined = "".join(tokens)
        if joined.startswith(text) or (joined and text.startswith(joined)):
            return 0
    for at in range(len(tokens) - 1, -1, -1):
        if "".join(tokens[at:]).startswith(text):
            return at
    return next((at for at in range(len(tokens)) if text.startswith("".join(tokens[at:]))), 0)


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None
