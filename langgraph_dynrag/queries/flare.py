"""FLARE's queries (Jiang et al. 2023, sections 3.2.2 and 3.1).

`MaskedSentence` is the implicit query, `ExplicitQuestion` the explicit one. `SearchTag` reads the search term that the
model writes in FLARE-instruct.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from rag_backbone.typed_fields import Bounds

_Beta = Annotated[float, Bounds(least=0, below=1, what="a probability from 0 (mask nothing) to below 1")]
_GAP = 5  # uncertain tokens closer than this belong to one span (published code)


@dataclass(frozen=True)
class MaskedSentence(BaseFormulator):
    """The tentative sentence without the tokens that the model was least certain of.

    Args:
        beta: Tokens with at most this probability are left out; 0 keeps the whole sentence.

    Raises:
        ConfigurationError: If `beta` is not a probability.
    """

    beta: _Beta = 0.4

    needs = frozenset({"logprob"})

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the remaining tokens in order, or the whole sentence if none remain."""
        unit = view.unit
        kept = [
            piece if math.exp(logprob) > self.beta else " "
            for piece, logprob in zip(unit.pieces, unit.logprobs, strict=True)
        ]
        masked = " ".join("".join(kept).split())
        return QueryPlan((masked if any(c.isalnum() for c in masked) else unit.text.strip(),))


@dataclass(frozen=True)
class ExplicitQuestion(BaseFormulator):
    """Questions, written by the model, whose answers are the uncertain spans of the sentence.

    Uncertain tokens (probability at most `beta`) less than five tokens apart form a span. Spans are widened to whole
    words; spans without a letter or digit are dropped. For each span, the model is asked for a question whose answer is
    that span. Replies that are not questions are dropped. If there are no spans, or no questions are left, the sentence
    itself is the query. (The published code widens spans by asking a second model for the full term; here they are
    widened to whole words instead.)

    Raises:
        ConfigurationError: If `beta` is not a probability.
    """

    beta: _Beta = 0.4

    needs = frozenset({"logprob"})

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return one prompt per span, or the sentence if there are no spans."""
        spans = uncertain_spans(view, self.beta)
        if not spans:
            return QueryPlan((view.unit.text.strip(),))
        written = (view.accepted + view.unit.text).strip()
        return QueryPlan(
            prompts=tuple(
                f"Question: {view.question}\nAnswer so far: {written}\n\n"
                f'Write one question, in a single line, to which the answer is exactly "{span}" in the text above.'
                for span in spans
            )
        )

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the replies that are questions, deduplicated, or the sentence if there are none."""
        found: dict[str, None] = {}
        for reply in replies:
            line = next((line.strip() for line in reply.splitlines() if line.strip()), "")
            if line.endswith("?") and len(line) > 1:
                found.setdefault(line)
        return tuple(found) or (view.unit.text.strip(),)


def uncertain_spans(view: DraftView, beta: float) -> list[str]:
    """Return the uncertain spans of the judged tokens as text, in order and deduplicated."""
    unit = view.unit
    clusters: list[list[int]] = []
    for t, logprob in enumerate(unit.logprobs):
        if math.exp(logprob) > beta:
            continue
        if clusters and t - clusters[-1][-1] < _GAP:
            clusters[-1].append(t)
        else:
            clusters.append([t])
    bounds = [(unit.spans[c[0]].start, unit.spans[c[-1]].end) for c in clusters]
    texts: dict[str, None] = {}
    for start, end in bounds:
        covered = [w for w in unit.word_spans if w.start < end and w.end > start]
        if covered:
            texts.setdefault(unit.text[covered[0].start : covered[-1].end])
    return list(texts)
