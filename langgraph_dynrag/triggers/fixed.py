"""Triggers that read no signals: never, once, at fixed intervals, and after each step or answer of a fixed number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Unit, Verdict
from langgraph_dynrag.method import Method
from langgraph_dynrag.triggers.base import BaseTrigger
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import sentences
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


@dataclass(frozen=True, slots=True)
class ReasoningSteps(BaseTrigger):
    """Retrieves after every sentence, and ends the text after `steps` sentences (IRCoT, Trivedi et al. 2023, 3.1).

    The last sentence is not searched for: the paper stops as soon as the maximum number of steps is reached, which is
    8. A sentence that holds the short answer ends the text earlier.

    Raises:
        ConfigurationError: If `steps` is less than 1.
    """

    steps: Annotated[int, Bounds(least=1)] = 8

    def judge(self, view: DraftView) -> Verdict:
        """Return a positive verdict until the text has `steps` sentences; then end it."""
        written = len(sentences(view.accepted + view.unit.text))
        last = written >= self.steps
        reason = f"{written} of {self.steps} steps are written"
        return Verdict(not last, reason, trigger="reasoning steps", ends=last)


@dataclass(frozen=True, slots=True)
class WholeAnswers(BaseTrigger):
    """Retrieves for each of several whole answers, and discards all but the last (ITER-RETGEN, Shao et al. 2023, 3.1).

    The first search comes before anything is written; `iterations=1` is therefore standard RAG. With the first answers
    as queries, a search may find what the question does not name.

    Raises:
        ConfigurationError: If `iterations` is less than 1.
    """

    iterations: Annotated[int, Bounds(least=1)] = 2
    """Number of answers, T in the paper, which evaluates up to 7: quality generally improves with T, and the second
    iteration brings the largest gain (section 4.5)."""

    unit = Unit("all")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Return a positive verdict."""
        return Verdict(True, "before each answer", trigger="whole answers")

    def judge(self, view: DraftView) -> Verdict:
        """Return a positive verdict that discards the answer, unless it is the last one."""
        again = view.rounds < self.iterations
        reason = f"answer {min(view.rounds, self.iterations)} of {self.iterations} is written"
        return Verdict(again, reason, position=0 if again else None, trigger="whole answers")

    def check_with(self, settings: Method) -> None:
        """Refuse settings that would keep an earlier answer, or not judge the next one.

        Raises:
            ConfigurationError: If the text is continued instead of written again.
        """
        if settings.resume_at == "end" or not settings.recheck:
            raise ConfigurationError(
                f"{self!r} writes each answer from the start; it needs resume_at='sentence' and recheck=True, as in "
                f"preset='iter_retgen'; resume_at is {settings.resume_at!r} and recheck is {settings.recheck}"
            )
