"""Queries that are pieces of text: the question, the last sentence, the last tokens."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_dynrag.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import Plan, WithoutModel
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True)
class Question(WithoutModel):
    """The user's question."""

    def plan(self, view: DraftView, verdict: Verdict) -> Plan:  # noqa: ARG002
        """The question."""
        return Plan((view.question,))


@dataclass(frozen=True)
class LastSentence(WithoutModel):
    """The last sentence written (IRCoT; fixed-sentence RAG)."""

    def plan(self, view: DraftView, verdict: Verdict) -> Plan:  # noqa: ARG002
        """The sentence that ends with the judged tokens."""
        return Plan((view.last_sentence,))


@dataclass(frozen=True)
class LastTokens(WithoutModel):
    """The last `n` tokens written (fixed-length RAG).

    Raises:
        ConfigurationError: If `n` is less than 1.
    """

    n: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n < 1:
            raise ConfigurationError(f"n is {self.n}; a query of the last n tokens needs at least 1")

    def plan(self, view: DraftView, verdict: Verdict) -> Plan:  # noqa: ARG002
        """The judged tokens, and before them as many words of the accepted text as are missing."""
        text = "".join(view.unit.pieces[-self.n :])
        if (missing := self.n - view.judged) > 0:
            # The accepted text is known as text; a word is a token or more, so this never takes too many.
            text = " ".join(view.accepted.split()[-missing:]) + text
        return Plan((text.strip(),))
