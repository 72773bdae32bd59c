"""Two candidates for the final answer, of which the more certain one is returned: SeaKR's self-aware reasoning.

Yao et al. 2024, section 3.3 and appendix B.3. When the reasoning is complete, two answers are written:

    A, from the rationales    question, rationales, "So the answer is"    continues the reasoning; no passages
    B, from the documents     passages, question                          reasons again; no rationales

Continuations of both are sampled, and the answer with the lower uncertainty U is returned (the formula is in
`langgraph_dynrag.seakr.uncertainty`). This module holds the comparison and its settings: pure data, without any
knowledge of prompts or models.

The published code differs for A: it puts the rationales where passages stand and reasons about them once more. The
table in the paper's appendix A.3 uses the mean of the rationales' own U for A, whereas section 3.3 compares the U of
the answers, which is what this module does. As in the published code, an answer that contains the word "unknown" loses.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Literal, NamedTuple, cast

from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.method import Method
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, check_fields

Basis = Literal["rationales", "documents"]
"""The material that an answer was written from."""


class AnswerCandidateState(TypedDict):
    """One of the two answers, as plain data."""

    basis: Basis
    text: str
    short_answer: str
    uncertainty: float | None


@dataclass(frozen=True, slots=True)
class AnswerCandidate:
    """One of the two answers."""

    basis: Basis
    text: str
    """The whole text, the reasoning included."""
    short_answer: str
    uncertainty: float | None
    """U of the samples; None if every sample was empty, which ranks as less certain than any number."""

    @property
    def is_none(self) -> bool:
        """Whether the answer is blank or says that it is unknown."""
        return not self.short_answer.strip() or re.search(r"\bunknown\b", self.short_answer.lower()) is not None

    def to_state(self) -> AnswerCandidateState:
        """Return the candidate as plain data."""
        return cast("AnswerCandidateState", asdict(self))


class AnswerChoice(NamedTuple):
    """The answer to return, and why."""

    answer: AnswerCandidate
    reason: str


@dataclass(frozen=True, slots=True)
class SurerAnswer:
    """Returns the less uncertain of an answer from the rationales and an answer from the documents.

    It needs passages in the prompt; a run without any keeps the answer as it was written. It costs two answers and two
    sets of samples, and text written before the choice is made is not streamed as the answer.

    Args:
        sampling: How to sample, and how many samples per answer. Samples of A end with the sentence, samples of B with
            the short answer.
        alpha: Regularisation term of the determinant.

    Raises:
        ConfigurationError: If `sampling` is not a `SampleSpec`, or alpha is not positive.
    """

    sampling: SampleSpec = field(default_factory=SampleSpec)
    alpha: Annotated[float, Bounds(above=0)] = 1e-3

    def __post_init__(self) -> None:
        check_fields(self)

    def check_with(self, settings: Method) -> None:
        """Refuse methods that leave nothing to compare.

        Raises:
            ConfigurationError: If the settings insert results into the text, drop evidence after each sentence, or
                select continuations.
        """
        if settings.tag_format is not None:
            raise ConfigurationError(
                "final_answer compares an answer written with documents in the prompt to one written without; the "
                f"results of {settings.trigger} stand in the answer. Use final_answer=None."
            )
        if settings.evidence_life == "sentence":
            raise ConfigurationError(
                "final_answer compares answers by the documents that stand in the prompt at the end, but with "
                'evidence_life="sentence" they leave the prompt after each sentence. Use "accumulated" or "replaced", '
                "or final_answer=None."
            )
        if settings.selection is not None:
            raise ConfigurationError(
                "final_answer and selection both choose the answer, in different ways; use one of them, and None for "
                "the other"
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Hidden states at the ends of samples."""
        return frozenset({"end_states"})

    def samples_of(self, basis: Basis) -> SampleSpec:
        """Return how to sample the continuations that judge an answer."""
        return replace(self.sampling, until="sentence" if basis == "rationales" else "answer")


def surer(rationales: AnswerCandidate, documents: AnswerCandidate) -> AnswerChoice:
    """Return the answer with the lower uncertainty; a blank or unknown answer loses to one that is neither.

    If both are equally uncertain, the answer from the rationales wins.
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
