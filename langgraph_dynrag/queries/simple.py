"""Queries copied from existing text: the question, the last sentence, the last tokens, or the whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from rag_backbone.typed_fields import Bounds


@dataclass(frozen=True)
class Question(BaseFormulator):
    """The user's question, unchanged.

    A search falls back to it where another formulator returns no query.
    """

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the question."""
        return QueryPlan((view.question,))


@dataclass(frozen=True)
class LastSentence(BaseFormulator):
    """The last generated sentence (IRCoT; fixed-sentence RAG).

    Alone it finds no more of what is missing than the question does; see `WithQuestion`.
    """

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the sentence that ends with the judged tokens."""
        return QueryPlan((view.last_sentence,))


@dataclass(frozen=True)
class LastTokens(BaseFormulator):
    """The last `n` generated tokens (fixed-length RAG).

    Raises:
        ConfigurationError: If `n` is less than 1.
    """

    n: Annotated[int, Bounds(least=1)] = 16

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the last judged tokens, preceded by words of the accepted text if there are fewer than `n`."""
        text = "".join(view.unit.pieces[-self.n :])
        if (missing := self.n - view.judged) > 0:
            # Token boundaries of the accepted text are unknown, so words (of one token or more) replace them.
            text = " ".join(view.accepted.split()[-missing:]) + text
        return QueryPlan((text.strip(),))


@dataclass(frozen=True)
class AnswerThenQuestion(BaseFormulator):
    """The whole text written so far, followed by the question (ITER-RETGEN, Shao et al. 2023, equation 1).

    Queries that are too long keep their end (`query_tokens`), and with it the question.
    """

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the accepted text, the judged tokens and the question."""
        return QueryPlan((f"{(view.accepted + view.unit.text).strip()} {view.question}".strip(),))
