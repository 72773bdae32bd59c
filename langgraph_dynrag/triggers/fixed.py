"""Triggers that look at no signal: never, once, and at fixed intervals."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_dynrag.draft import DraftView, Signal, Unit, Verdict
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class Never:
    """Never retrieves (no RAG)."""

    @property
    def needs(self) -> frozenset[Signal]:
        """None."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """The whole answer."""
        return Unit("all")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """No."""
        return None

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """No."""
        return Verdict(False, "never retrieves", trigger="never")


@dataclass(frozen=True, slots=True)
class Once:
    """Retrieves once, before anything is written (RAG as usually run)."""

    @property
    def needs(self) -> frozenset[Signal]:
        """None."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """The whole answer."""
        return Unit("all")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Yes."""
        return Verdict(True, "once, before the answer", trigger="once")

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Not again."""
        return Verdict(False, "retrieved before the answer", trigger="once")


@dataclass(frozen=True, slots=True)
class EveryNTokens:
    """Retrieves after every `n` tokens, and keeps them (fixed-length RAG; RETRO, IC-RALM).

    Raises:
        ConfigurationError: If `n` is less than 1.
    """

    n: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n < 1:
            raise ConfigurationError(f"n is {self.n}; retrieving every n tokens needs at least 1")

    @property
    def needs(self) -> frozenset[Signal]:
        """None."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """`n` tokens."""
        return Unit("tokens", self.n)

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """No; presets retrieve with the question first."""
        return None

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Always."""
        return Verdict(True, f"{self.n} tokens were written", trigger=f"every {self.n} tokens")


@dataclass(frozen=True, slots=True)
class EverySentence:
    """Retrieves after every sentence, and keeps it (fixed-sentence RAG; IRCoT)."""

    @property
    def needs(self) -> frozenset[Signal]:
        """None."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """A sentence."""
        return Unit("sentence")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """No; presets retrieve with the question first."""
        return None

    def judge(self, view: DraftView) -> Verdict:  # noqa: ARG002
        """Always."""
        return Verdict(True, "a sentence was written", trigger="every sentence")
