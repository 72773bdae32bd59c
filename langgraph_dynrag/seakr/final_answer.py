"""Two answers at the end, of which the one is given that the model is surer of: SeaKR's self-aware reasoning.

Yao et al. 2024, section 3.3 and appendix B.3. When the reasoning is over,

    A, from the rationales    question, rationales, "So the answer is"    goes on from what was reasoned; no passages
    B, from the documents     passages, question                          reasons anew; no rationales

are both written, continuations of both are sampled, and the answer of the lower uncertainty U is given (`samples` has
the formula). Here is what is compared and how, and the setting; pure data, which knows nothing of prompts and models.

The published code differs for A: it puts the rationales where passages stand and has them reasoned about once more. The
table in the paper's appendix A.3 takes the mean of the rationales' own U for A; section 3.3 compares the answers', and
that is followed. That an answer which contains the word "unknown" loses is the code's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, NamedTuple

from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.method import Method
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, check_fields

Basis = Literal["rationales", "documents"]
"""What an answer was written from."""


class AnswerCandidateState(TypedDict):
    """One of the two answers as plain data."""

    basis: Basis
    text: str
    short_answer: str
    uncertainty: float | None


@dataclass(frozen=True, slots=True)
class AnswerCandidate:
    """One of the two answers."""

    basis: Basis
    text: str
    """All of it, the reasoning included."""
    short_answer: str
    uncertainty: float | None
    """U of the samples; None if every one of them was empty, which is less certain than any number."""

    @property
    def is_none(self) -> bool:
        """Whether it says nothing, or that the answer is unknown."""
        return not self.short_answer.strip() or re.search(r"\bunknown\b", self.short_answer.lower()) is not None

    def to_state(self) -> AnswerCandidateState:
        """Plain data."""
        return {
            "basis": self.basis,
            "text": self.text,
            "short_answer": self.short_answer,
            "uncertainty": self.uncertainty,
        }


class AnswerChoice(NamedTuple):
    """The answer that is given, and why."""

    answer: AnswerCandidate
    reason: str


@dataclass(frozen=True, slots=True)
class SurerAnswer:
    """Gives the less uncertain one of an answer from the rationales and an answer from the documents.

    It needs passages that stand in the prompt; where a run has none, the answer stays as it was written. It costs two
    answers and twice the samples; what is written before the choice is made is not streamed as the answer.

    Args:
        sampling: How many samples for each of the two, and how. Those of A end with the sentence, those of B with the
            short answer.
        alpha: Of the determinant.

    Raises:
        ConfigurationError: If the sampling is no `SampleSpec` or alpha not positive.
    """

    sampling: SampleSpec = field(default_factory=SampleSpec)
    alpha: Annotated[float, Bounds(above=0)] = 1e-3

    def __post_init__(self) -> None:
        check_fields(self)

    def check_with(self, settings: Method) -> None:
        """Refuse methods where there is nothing to compare."""
        if settings.exchange.within_text:
            raise ConfigurationError(
                "final_answer compares an answer with documents in the prompt with one without; the results of "
                f"{settings.trigger} stand in the answer. Use final_answer=None."
            )
        if settings.evidence_life == "sentence":
            raise ConfigurationError(
                "final_answer compares answers by the documents that stand in the prompt at the end, and with "
                'evidence_life="sentence" they leave it sentence by sentence. Use "accumulated" or "replaced", or '
                "final_answer=None."
            )
        if settings.selection is not None:
            raise ConfigurationError(
                "final_answer and selection both choose the answer, each in its own way: use one of them, and None for "
                "the other"
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Hidden states at the ends of samples."""
        return frozenset({"end_states"})

    def samples_of(self, basis: Basis) -> SampleSpec:
        """How the continuations that judge an answer are sampled."""
        return replace(self.sampling, until="sentence" if basis == "rationales" else "answer")


def surer(rationales: AnswerCandidate, documents: AnswerCandidate) -> AnswerChoice:
    """The answer of the lower uncertainty; one that says nothing loses to one that says something.

    Of equals, the one from the rationales.
    """
    both = (rationales, documents)
    said = [answer for answer in both if not answer.is_none]
    if len(said) == 1:
        return AnswerChoice(said[0], "the other one says nothing")
    ranks = [math.inf if answer.uncertainty is None else answer.uncertainty for answer in both]
    chosen = both[ranks.index(min(ranks))]
    if ranks[0] == ranks[1]:
        return AnswerChoice(chosen, "both are equally uncertain")
    if math.inf in ranks:
        return AnswerChoice(chosen, "every sample of the other one was empty")
    return AnswerChoice(chosen, f"uncertainty {min(ranks):.3f} < {max(ranks):.3f}")
