"""Triggers that read no signals: never, once, and at fixed intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Unit, Verdict
from langgraph_dynrag.triggers.base import BaseTrigger
from rag_backbone.typed_fields import Bounds


@dataclass(frozen=True, slots=True)
class Never(BaseTrigger):
    """Never retrieves (no RAG).

    With a retriever and `initial_retrieval=True`, the graph still searches once, with the question.
    """

    unit = Unit("all")

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Return a negative verdict."""
        return Verdict(False, "never retrieves", trigger="never")


@dataclass(frozen=True, slots=True)
class Once(BaseTrigger):
    """Retrieves once, before anything is generated (standard RAG).

    The query is the question.
    """

    unit = Unit("all")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Return a positive verdict."""
        return Verdict(True, "once, before the answer", trigger="once")

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Return a negative verdict, since retrieval has already happened."""
        return Verdict(False, "retrieved before the answer", trigger="once")


@dataclass(frozen=True, slots=True)
class EveryNTokens(BaseTrigger):
    """Retrieves after every `n` tokens and keeps them (fixed-length RAG; RETRO, IC-RALM).

    Raises:
        ConfigurationError: If `n` is less than 1.
    """

    n: Annotated[int, Bounds(least=1)] = 16

    @property
    def unit(self) -> Unit:
        """Unit of `n` tokens."""
        return Unit("tokens", self.n)

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Return a positive verdict."""
        return Verdict(True, f"{self.n} tokens were written", trigger=f"every {self.n} tokens")


@dataclass(frozen=True, slots=True)
class EverySentence(BaseTrigger):
    """Retrieves after every sentence and keeps it (fixed-sentence RAG; IRCoT).

    It reads no signal, so it works with any model.
    """

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Return a positive verdict."""
        return Verdict(True, "a sentence was written", trigger="every sentence")
