"""Queries that are pieces of text: the question, the last sentence, the last tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from rag_backbone.typed_fields import Bounds


@dataclass(frozen=True)
class Question(BaseFormulator):
    """The user's question."""

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """The question."""
        return QueryPlan((view.question,))


@dataclass(frozen=True)
class LastSentence(BaseFormulator):
    """The last sentence written (IRCoT; fixed-sentence RAG)."""

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """The sentence that ends with the judged tokens."""
        return QueryPlan((view.last_sentence,))


@dataclass(frozen=True)
class LastTokens(BaseFormulator):
    """The last `n` tokens written (fixed-length RAG).

    Raises:
        ConfigurationError: If `n` is less than 1.
    """

    n: Annotated[int, Bounds(least=1)] = 16

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """The judged tokens, and before them as many words of the accepted text as are missing."""
        text = "".join(view.unit.pieces[-self.n :])
        if (missing := self.n - view.judged) > 0:
            # The accepted text is known as text; a word is a token or more, so this never takes too many.
            text = " ".join(view.accepted.split()[-missing:]) + text
        return QueryPlan((text.strip(),))
