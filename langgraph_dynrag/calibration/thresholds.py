"""From judgements on drafts to a threshold. Pure.

A trigger is a function of the draft and of its threshold, so drafts are written once and judged at every threshold.
Better still: as a threshold rises, a trigger begins (FLARE's) or ceases (all others) to fire at one value, its
*critical* one. That of every judged piece is found by bisection between the scores that the trigger itself reports;
after that, the rate at any threshold is counting, and so is the bootstrap.

Inside, thresholds are turned so that a higher one fires more often: a piece fires where `sense * threshold > critical`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rag_backbone.errors import ConfigurationError

Per = Literal["sentence", "question"]
"""Of what the rate is a share: of the pieces that were judged, or of the questions with at least one search."""

Fires = Callable[[float], bool | None]
"""Whether a piece calls for a search at a threshold; None if the trigger takes no such threshold."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgedPiece:
    """One judged piece of a draft."""

    fires: Fires
    scores: tuple[float, ...]
    """What the threshold is compared with."""


@dataclass(frozen=True)
class Curve:
    """How often a trigger fires, as a function of its threshold.

    Args:
        criticals: Of each question, those of its pieces; infinite where no threshold makes a difference.
        sense: 1 if a higher threshold fires more often, else -1.
    """

    criticals: tuple[Values, ...]
    sense: int

    @classmethod
    def of(cls, questions: Sequence[Sequence[JudgedPiece]]) -> Curve:
        """The curve of some questions' judgements.

        Raises:
            ConfigurationError: If no piece depends on the threshold, or pieces do in opposite senses.
        """
        flips = [[flip(j) for j in judgements] for judgements in questions]
        senses = {sense for found in flips for _, sense in found if sense}
        if not senses:
            raise ConfigurationError(
                f"no threshold makes a difference on these {len(questions)} questions: the trigger reports no scores, "
                "or all the same"
            )
        if len(senses) > 1:
            raise ConfigurationError(_NOT_MONOTONE)
        sense = senses.pop()
        return cls(tuple(np.asarray([_turned(value, own, sense) for value, own in found]) for found in flips), sense)

    def values(self, per: Per) -> list[Values]:
        """By question, the criticals that a rate counts."""
        if per == "sentence":
            return list(self.criticals)
        return [v.min(keepdims=True) if len(v) else np.asarray([np.inf]) for v in self.criticals]

    def rate(self, threshold: float, per: Per) -> float:
        """The share that fires at a threshold."""
        return float((np.concatenate(self.values(per)) < self.sense * threshold).mean())

    def firing(self, threshold: float) -> NDArray[np.int64]:
        """(questions,): how many pieces of each fire at a threshold."""
        return np.asarray([(v < self.sense * threshold).sum() for v in self.criticals], np.int64)

    def threshold(self, rate: float, per: Per, valid: Callable[[float], bool] = lambda _: True) -> float:
        """The threshold whose rate is nearest to the wanted one, amid the gap between two criticals.

        Args:
            rate: Wanted share.
            per: Of what.
            valid: Whether the trigger takes a threshold.
        """
        return self._settled(np.concatenate(self.values(per)), rate, valid)

    def bootstrap(self, rate: float, per: Per, *, samples: int, seed: int) -> Values:
        """(samples,): the thresholds that questions drawn anew, with replacement, would have given."""
        groups = self.values(per)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(groups), (samples, len(groups)))
        return np.asarray([self._settled(np.concatenate([groups[i] for i in d]), rate, lambda _: True) for d in drawn])

    def rate_interval(self, threshold: float, per: Per, *, samples: int, seed: int) -> tuple[float, float]:
        """The 95 % bootstrap interval of the rate at a threshold."""
        groups = self.values(per)
        fired = np.asarray([(g < self.sense * threshold).sum() for g in groups])
        counts = np.asarray([len(g) for g in groups])
        drawn = np.random.default_rng(seed).integers(0, len(groups), (samples, len(groups)))
        return interval(fired[drawn].sum(1) / np.maximum(counts[drawn].sum(1), 1))

    def _settled(self, values: Values, rate: float, valid: Callable[[float], bool]) -> float:
        found = nearest_gap(values, rate)
        candidates = [self.sense * c for c in found]
        return next((c for c in candidates if valid(c)), candidates[-1])


def nearest_gap(criticals: Values, rate: float) -> list[float]:
    """Thresholds (turned) at which the share of criticals below comes nearest to a rate; the best choice first.

    Between two criticals it is their middle; beyond the first or last one it is a little outside, or the end itself.
    Of two rates that are equally near, the lower one.
    """
    u = np.sort(criticals)
    n = len(u)
    finite = u[np.isfinite(u)]
    if not len(finite):
        return [0.0]
    lows = np.concatenate([[-np.inf], u])  # (n + 1,): with k firing, the threshold lies above lows[k] ...
    highs = np.concatenate([u, [np.inf]])  # ... and not above highs[k]
    possible = np.flatnonzero(lows < highs)
    k = int(possible[np.argmin(np.abs(possible - rate * n))])
    low, high = lows[k], highs[k]
    if np.isfinite(low) and np.isfinite(high):
        return [float((low + high) / 2)]
    width = float(finite[-1] - finite[0]) or max(abs(float(finite[0])), 1e-6)
    if np.isfinite(high):
        return [float(high) - width * part for part in (0.05, 0.001)] + [math.nextafter(float(high), -math.inf)]
    return [float(low) + width * part for part in (0.05, 0.001)] + [math.nextafter(float(low), math.inf)]


def flip(judgement: JudgedPiece) -> tuple[float, int]:
    """The critical threshold of a piece, and whether it fires above (1) or below (-1) it.

    A piece that always or never fires has an infinite one, negative or positive, and no sense (0).
    """
    values = sorted({s for s in judgement.scores if math.isfinite(s)})
    if not values:
        return math.inf, 0
    pad = max(abs(values[-1]), abs(values[0]), 1e-6) * 1e-3
    between = [(a + b) / 2 for a, b in pairwise(values)]
    tests = [values[0] - pad, *between, values[-1] + pad]
    low, high = 0, len(tests) - 1
    while low <= high and (first := judgement.fires(tests[low])) is None:
        low += 1
    while high >= low and (last := judgement.fires(tests[high])) is None:
        high -= 1
    if low > high:
        return math.inf, 0
    if first == last:
        return (-math.inf if first else math.inf), 0
    while high - low > 1:
        middle = (low + high) // 2
        if judgement.fires(tests[middle]) == first:
            low = middle
        else:
            high = middle
    return values[low], 1 if last else -1


def interval(samples: Values) -> tuple[float, float]:
    """The middle 95 % of bootstrap samples."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def check(curve: Curve, questions: Sequence[Sequence[JudgedPiece]], threshold: float) -> None:
    """Judge every piece at the chosen threshold, and compare with what was counted.

    Raises:
        ConfigurationError: If it differs, because the trigger is not monotone in its threshold.
    """
    for found, judgements in zip(curve.criticals, questions, strict=True):
        for critical, judgement in zip(found, judgements, strict=True):
            if bool(judgement.fires(threshold)) != bool(critical < curve.sense * threshold):
                raise ConfigurationError(_NOT_MONOTONE)


def _turned(value: float, own: int, sense: int) -> float:
    return value * sense if own else value


_NOT_MONOTONE = (
    "the trigger is not monotone in its threshold: as it rises, pieces of text begin to call for a search and others "
    "cease to. Such a trigger cannot be calibrated; set its threshold by hand."
)
