"""Writing one continuation for each passage in one batch of a local model's engine, for both kinds of reflector."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import Draft, EndOfDraft
from langgraph_dynrag.evidence import Passage, render, within_budget
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.reflection.base import (
    ContinuationBatch,
    Expansion,
    Path,
    RetrievalJudgements,
    SegmentSelection,
    WrittenContinuations,
)
from langgraph_dynrag.reflection.beam import Hypothesis, Segment, SegmentCandidate
from langgraph_dynrag.reflection.scores import Critique, SegmentScore
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.prefix_cache import common_prefix
from rag_backbone.engine.requests import Generation, Request, TokenCounts
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals, TokenStep

_WORTH_SHARING = 16
"""Tokens of a common beginning below which computing it ahead saves nothing."""


@dataclass(frozen=True)
class EncodedExpansion:
    """An expansion as the engine will see it."""

    expansion: Expansion
    prompt_ids: list[int]
    added: tuple[int, ...]
    """Those of them that the segment adds to what its hypothesis had: marks and passage."""


class Stop:
    """Says after each token whether a segment is written, and why."""

    def __init__(self, deadline: float) -> None:
        self.ended: EndOfDraft | None = None
        self._deadline = deadline

    def __call__(self, step: TokenStep) -> bool:
        """Take note of the next token."""
        self.ended = self.reason(step)
        if self.ended is None and time.monotonic() >= self._deadline:
            self.ended = "deadline"
        return self.ended is not None

    def reason(self, step: TokenStep) -> EndOfDraft | None:  # noqa: ARG002
        """Why to end after this token, if so."""
        return None

    def why(self, made: Generation) -> EndOfDraft:
        """Why the draft ended."""
        if self.ended is not None:
            return self.ended
        return "limit" if made.finish_reason == "length" else "end"


class LocalReflector(ABC):
    """A reflector on a `LocalChatModel`; subclasses say how it is asked and what its tokens mean."""

    path: Path
    margin: int = 0
    """Tokens that judging a segment needs beyond what writing it did."""

    def __init__(self, chat: LocalChatModel, selection: SegmentSelection) -> None:
        self.chat = chat
        self.selection = selection

    @property
    def prompt(self) -> AnswerPrompt | None:
        """How the model was trained to be asked; None: as any other model."""
        return None

    @property
    def engine(self) -> Engine:
        """The model's engine."""
        return self.chat.lm.engine

    @abstractmethod
    def retrieval(self, question: str, prompt: AnswerPrompt, hypotheses: Sequence[Hypothesis]) -> RetrievalJudgements:
        """Whether each hypothesis needs a passage next."""

    @abstractmethod
    def _row(self, writing: ContinuationBatch, expansion: Expansion) -> EncodedExpansion:
        """The tokens that the expansion continues."""

    @abstractmethod
    def _stop(self, writing: ContinuationBatch, expansion: Expansion) -> Stop:
        """When a segment is over."""

    @abstractmethod
    def _signals(self) -> Signals:
        """What judging a segment reads."""

    @abstractmethod
    def _segments(
        self,
        writing: ContinuationBatch,
        rows: Sequence[EncodedExpansion],
        drafts: Sequence[tuple[Generation, EndOfDraft]],
    ) -> JudgedSegments:
        """What was written, judged."""

    def write(self, writing: ContinuationBatch) -> WrittenContinuations:
        """Continue hypotheses, all of them in one batch, and judge what was written."""
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
        # A hypothesis that fills the context window is over.
        candidates += [SegmentCandidate(row.expansion.parent, _nothing()) for row in full]
        return WrittenContinuations(tuple(candidates), counts + made.counts, tuple(left_out), tuple(shortened))

    # ------------------------------------------------------------------ helpers

    def _most(self, expansion: Expansion) -> int:
        """Tokens that may be generated."""
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
        """The row, its passage shortened as far as it has to be; None if nothing of the passage would be left."""
        row = self._row(writing, expansion)
        if expansion.passage is None or not expansion.fresh:  # what an earlier segment was written with did fit
            return row
        size = self._size(expansion.passage)
        over = len(row.prompt_ids) + expansion.limit + writing.reserve + self.margin - self.engine.context_window
        budget = min(writing.passage_tokens, size - max(over, 0))
        if size <= budget:
            return row
        kept, _ = within_budget([expansion.passage], max(budget, 0), self._count)
        return self._row(writing, replace(expansion, passage=kept[0])) if kept else None

    def _size(self, passage: Passage) -> int:
        return self._count(render([passage]))

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
    """Judged segments, in the rows' order, and what judging them cost."""

    segments: Sequence[Segment]
    counts: TokenCounts = field(default_factory=TokenCounts)


def together(engine: Engine, requests: Sequence[Request]) -> tuple[TokenCounts, list[Generation]]:
    """Generate in one batch, with what all prompts begin with computed once."""
    counts = TokenCounts()
    prompts = [list(request.prompt) for request in requests if not isinstance(request.prompt, str)]
    if len(prompts) > 1:
        shared = min(common_prefix(prompts[0], p) for p in prompts[1:])
        # A row takes a sequence that it continues as a whole for itself, and leaves alone one that goes on otherwise:
        # the beginning is computed with one token more, the last row's, which is the last one to look for it.
        beginning = prompts[-1][: shared + 1]
        if shared >= _WORTH_SHARING:
            counts += engine.generate(Request(beginning, max_new_tokens=1)).counts
    generations = engine.generate_batch(requests)
    return sum((made.counts for made in generations), counts), generations


def _nothing() -> Segment:
    return Segment(Draft(), (), None, Critique(), SegmentScore(0.0, 0.0, 0.0, 0.0, 0.0), ended=True)
