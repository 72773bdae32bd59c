"""Self-RAG's judgements as numbers, and the score of a segment (Asai et al. 2023, section 3.3 and appendix A.3).

    f = exp(mean token log-probability) + w_rel s_rel + w_sup s_sup + w_use s_use

    s_rel = p(relevant) / (p(relevant) + p(irrelevant))
    s_sup = (p(full) + 0.5 p(partial)) / (p(full) + p(partial) + p(none))
    s_use = sum_i w_i p(i) / sum_i p(i),  i = 1..5,  w = -1, -0.5, 0, 0.5, 1

A missing judgement counts as 0. A poor utility is negative, following the paper's weights. The mean is over the tokens
of the segment's text only, because the judgements have their own terms. Pure functions; no framework, no model.

The published code differs in places. Its short form takes ratios of log-probabilities, which inverts the decision to
retrieve. Its long form reads utility at the ids of support, so that utility is always 0. This module follows the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, cast

from typing_extensions import TypedDict

from rag_backbone.typed_fields import Bounds, check_fields

Probabilities = Mapping[str, float]
"""A judgement: the probability of each of its answers, normalised over them."""

RETRIEVAL = ("yes", "no", "continue")
"""Whether a passage is needed next. `continue`: the current one still serves."""
RELEVANCE = ("relevant", "irrelevant")
SUPPORT = ("full", "partial", "none")
UTILITY = ("1", "2", "3", "4", "5")
_UTILITY_WEIGHTS = (-1.0, -0.5, 0.0, 0.5, 1.0)


_Weight = Annotated[float, Bounds(least=0, what="a finite number, 0 or more,")]


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the judgements relative to the text's likelihood. The defaults are the paper's.

    Raises:
        ConfigurationError: If a weight is negative or not finite.
    """

    relevance: _Weight = 1.0
    support: _Weight = 1.0
    utility: _Weight = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "the weight of ")


class CritiqueState(TypedDict):
    """A critique, as plain data."""

    relevance: dict[str, float] | None
    support: dict[str, float] | None
    utility: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Critique:
    """The judgements on one segment; None for a judgement that was not made."""

    relevance: Probabilities | None = None
    support: Probabilities | None = None
    utility: Probabilities | None = None

    @property
    def unsupported(self) -> bool:
        """Whether `none` is the likeliest support."""
        return self.support is not None and likeliest(self.support) == "none"

    def to_state(self) -> CritiqueState:
        """Return the critique as plain data."""
        return {"relevance": plain(self.relevance), "support": plain(self.support), "utility": plain(self.utility)}


class SegmentScoreState(TypedDict):
    """The terms of a score, as plain data."""

    likelihood: float
    relevance: float
    support: float
    utility: float
    total: float


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """The terms of a segment's score, before weighting, and their weighted sum."""

    likelihood: float
    relevance: float
    support: float
    utility: float
    total: float

    def to_state(self) -> SegmentScoreState:
        """Return the terms as plain data."""
        return cast("SegmentScoreState", asdict(self))


def plain(p: Probabilities | None) -> dict[str, float] | None:
    """Return a judgement as a dict, which a state can hold."""
    return None if p is None else dict(p)


def score(logprobs: Sequence[float], critique: Critique, weights: Weights) -> SegmentScore:
    """Return the score of a segment.

    Args:
        logprobs: Log-probabilities of its text's tokens.
        critique: The judgements on it.
        weights: Weights of the judgements.
    """
    p = likelihood(logprobs)
    rel, sup, use = relevance(critique.relevance), support(critique.support), utility(critique.utility)
    total = p + weights.relevance * rel + weights.support * sup + weights.utility * use
    return SegmentScore(p, rel, sup, use, total)


def likelihood(logprobs: Sequence[float]) -> float:
    """Return the geometric mean of the tokens' probabilities; 0 if there are no tokens."""
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 0.0


def relevance(p: Probabilities | None) -> float:
    """Return the relevance term, between 0 and 1."""
    return 0.0 if p is None else _share(p, RELEVANCE, (1.0, 0.0))


def support(p: Probabilities | None) -> float:
    """Return the support term, between 0 and 1."""
    return 0.0 if p is None else _share(p, SUPPORT, (1.0, 0.5, 0.0))


def utility(p: Probabilities | None) -> float:
    """Return the utility term, between -1 and 1."""
    return 0.0 if p is None else _share(p, UTILITY, _UTILITY_WEIGHTS)


def normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Return probabilities normalised over the given answers; uniform if none of them can occur."""
    top = max(logprobs.values())
    if top == -math.inf:
        return dict.fromkeys(logprobs, 1 / len(logprobs))
    masses = {name: math.exp(value - top) for name, value in logprobs.items()}
    total = math.fsum(masses.values())
    return {name: mass / total for name, mass in masses.items()}


def likeliest(p: Probabilities) -> str:
    """Return the likeliest answer; the first one on ties."""
    return max(p, key=lambda name: p[name])


def _share(p: Probabilities, names: Sequence[str], weights: Sequence[float]) -> float:
    total = math.fsum(p.get(name, 0.0) for name in names)
    if total <= 0:
        return 0.0
    return math.fsum(w * p.get(name, 0.0) for name, w in zip(names, weights, strict=True)) / total
