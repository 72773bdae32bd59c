"""Writing one continuation per passage in one batch of a local engine. The base of both kinds of reflector."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import Draft, EndOfDraft
from langgraph_dynrag.evidence import render, within_budget
from langgraph_dynrag.reflection.base import (
    ContinuationBatch,
    Expansion,
    Reflector,
    SegmentSelection,
    WrittenContinuations,
)
from langgraph_dynrag.reflection.beam import Segment, SegmentCandidate
from langgraph_dynrag.reflection.scores import Critique, SegmentScore
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.prefix_cache import common_prefix
from rag_backbone.engine.requests import Generation, Request, TokenCounts
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals, TokenStep

_WORTH_SHARING = 16
"""Minimum length, in tokens, of a shared prefix that is worth computing ahead."""


@dataclass(frozen=True)
class EncodedExpansion:
    """An expansion, encoded for the engine."""

    expansion: Expansion
    prompt_ids: list[int]
    added: tuple[int, ...]
    """The ids at the end of `prompt_ids` that the segment adds to its hypothesis: marks and passage."""


class Stop:
    """Callable that decides after each token whether a segment is complete, and why."""

    def __init__(self, deadline: float) -> None:
        self.ended: EndOfDraft | None = None
        self._deadline = deadline

    def __call__(self, step: TokenStep) -> bool:
        """Process the next token, and return whether to stop."""
        self.ended = self.reason(step)
        if self.ended is None and time.monotonic() >= self._deadline:
            self.ended = "deadline"
        return self.ended is not None

    def reason(self, step: TokenStep) -> EndOfDraft | None:  # noqa: ARG002
        """Return why to stop after this token; None to continue."""
        return None

    def why(self, made: Generation) -> EndOfDraft:
        """Return why the draft ended."""
        if self.ended is not None:
            return self.ended
        return "limit" if made.finish_reason == "length" else "end"


class LocalReflector(Reflector):
    """A reflector on a `LocalChatModel`. Subclasses define how the model is asked and what its tokens mean."""

    margin: int = 0
    """Number of tokens that judging a segment needs beyond those for writing it."""

    def __init__(self, chat: LocalChatModel, selection: SegmentSelection) -> None:
        self.chat = chat
        self.selection = selection

    @property
    def engine(self) -> Engine:
        """The model's engine."""
        return self.chat.lm.engine

    @abstractmethod
    def _row(self, writing: ContinuationBatch, expansion: Expansion) -> EncodedExpansion:
        """Encode the prompt that the expansion continues."""

    @abstractmethod
    def _stop(self, writing: ContinuationBatch, expansion: Expansion) -> Stop:
        """Return the callable that decides when a segment is complete."""

    @abstractmethod
    def _signals(self) -> Signals:
        """Return the signals that judging a segment reads."""

    @abstractmethod
    def _segments(
        self,
        writing: ContinuationBatch,
        rows: Sequence[EncodedExpansion],
        drafts: Sequence[tuple[Generation, EndOfDraft]],
    ) -> JudgedSegments:
        """Judge what was written."""

    def write(self, writing: ContinuationBatch) -> WrittenContinuations:
        """Continue all hypotheses in one batch, and judge the continuations."""
        rows, left_out, shortened = self._rows(writing)
        full = [row for row in rows if len(row.prompt_ids) >= self.engine.context_window]
        rows = [row for row in rows if row not in full]
        stops = [self._stop(writing, row.expansion) for row in rows]
        requests = [self._request(writing, n, row, stop) for n, (row, stop) in enumerate(zip(rows, stops, strict=True))]
        counts, generations = together(self.engine, requests)
        drafts = [(made, stop.why(made)) for made, stop in zip(generations, stops, strict=True)]
        made = self._segments(writing, rows, drafts)
        candidates = [
            SegmentCandidate(row.expansion.parent, segment) for row, segment in zip(rows, made.segments, strict=True)
        ]
        # A hypothesis that fills the context window has ended.
        candidates += [SegmentCandidate(row.expansion.parent, _nothing()) for row in full]
        return WrittenContinuations(tuple(candidates), counts + made.counts, tuple(left_out), tuple(shortened))

    # ------------------------------------------------------------------ helpers

    def _most(self, expansion: Expansion) -> int:
        """Return the maximum number of tokens to generate."""
        return expansion.limit

    def _rows(self, writing: ContinuationBatch) -> tuple[list[EncodedExpansion], list[tuple[int, str]], list[str]]:
        rows: list[EncodedExpansion] = []
        left_out: list[tuple[int, str]] = []
        shortened: list[str] = []
        for expansion in writing.expansions:
            row = self._fitting(writing, expansion)
            if row is None:
                assert expansion.passage is not None
                left_out.append((expansion.parent, expansion.passage["id"]))
                continue
            if row.expansion.passage is not expansion.passage and expansion.passage is not None:
                shortened.append(expansion.passage["id"])
            rows.append(row)
        served = {row.expansion.parent for row in rows}
        for expansion in writing.expansions:
            if expansion.parent not in served:
                served.add(expansion.parent)
                rows.append(self._row(writing, replace(expansion, passage=None, fresh=False)))
        return rows, left_out, list(dict.fromkeys(shortened))

    def _fitting(self, writing: ContinuationBatch, expansion: Expansion) -> EncodedExpansion | None:
        """Encode the expansion, its passage truncated as needed; None if nothing of the passage would be left."""
        row = self._row(writing, expansion)
        if expansion.passage is None or not expansion.fresh:  # the passage of an earlier segment did fit
            return row
        size = self._count(render([expansion.passage]))
        over = len(row.prompt_ids) + expansion.limit + writing.reserve + self.margin - self.engine.context_window
        budget = min(writing.passage_tokens, size - max(over, 0))
        if size <= budget:
            return row
        kept, _ = within_budget([expansion.passage], max(budget, 0), self._count)
        return self._row(writing, replace(expansion, passage=kept[0])) if kept else None

    def _count(self, text: str) -> int:
        return len(self.engine.encode(text))

    def _request(self, writing: ContinuationBatch, number: int, row: EncodedExpansion, stop: Stop) -> Request:
        chat, on_token = self.chat, writing.on_token
        seed = row.expansion.seed if row.expansion.seed is not None else chat.seed
        tell = None if on_token is None else partial(on_token, number)

        def stop_when(step: TokenStep) -> bool:
            if tell is not None:
                tell(step.text, step.logprob, step.entropy)
            return stop(step)

        return Request(
            row.prompt_ids,
            max_new_tokens=self._most(row.expansion),
            stop=writing.prompt.stop,
            sampling=Sampling(chat.temperature, chat.top_p, chat.top_k, seed),
            signals=self._signals(),
            stop_when=stop_when,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.chat.lm.name!r}, {self.selection})"


@dataclass(frozen=True)
class JudgedSegments:
    """Judged segments, in the order of the encoded expansions, and the cost of judging them."""

    segments: Sequence[Segment]
    counts: TokenCounts = field(default_factory=TokenCounts)


def together(engine: Engine, requests: Sequence[Request]) -> tuple[TokenCounts, list[Generation]]:
    """Generate in one batch, computing the prefix shared by all prompts once."""
    counts = TokenCounts()
    prompts = [list(request.prompt) for request in requests if not isinstance(request.prompt, str)]
    if len(prompts) > 1:
        shared = min(common_prefix(prompts[0], p) for p in prompts[1:])
        # A sequence takes over a cached sequence that it continues completely, and leaves alone one that continues
        # differently. So the prefix is computed with one extra token: that of the last prompt, which looks it up last.
        beginning = prompts[-1][: shared + 1]
        if shared >= _WORTH_SHARING:
            counts += engine.generate(Request(beginning, max_new_tokens=1)).counts
    generations = engine.generate_batch(requests)
    return sum((made.counts for made in generations), counts), generations


def _nothing() -> Segment:
    return Segment(Draft(), (), None, Critique(), SegmentScore(0.0, 0.0, 0.0, 0.0, 0.0), ended=True)
