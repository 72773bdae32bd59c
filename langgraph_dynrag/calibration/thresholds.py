"""Compute a threshold from a trigger's judgements on drafts. Pure.

A trigger is a function of the draft and of its threshold, so drafts are written once and can be judged at any
threshold. Judging at every threshold is not necessary: as the threshold rises, a trigger starts (FLARE's) or stops (all
others) firing on a piece at one value, the piece's *critical* threshold. It is found by bisection between the scores
that the trigger reports; after that, the rate at any threshold, and the bootstrap, only require counting.

Internally, thresholds carry a sign such that a higher one fires more often: a piece fires if
`sense * threshold > critical`.
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
"""The unit of the rate: share of the judged pieces, or of the questions with at least one search."""

Fires = Callable[[float], bool | None]
"""Whether a piece triggers a search at a threshold; None if the trigger does not accept the threshold."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgedPiece:
    """One judged piece of a draft."""

    fires: Fires
    scores: tuple[float, ...]
    """The scores that the threshold is compared with."""


@dataclass(frozen=True)
class Curve:
    """The rate at which a trigger fires, as a function of its threshold.

    Args:
        criticals: The signed critical thresholds of each question's pieces; infinite where no threshold makes a
            difference.
        sense: 1 if a higher threshold fires more often, else -1.
    """

    criticals: tuple[Values, ...]
    sense: int

    @classmethod
    def of(cls, questions: Sequence[Sequence[JudgedPiece]]) -> Curve:
        """Build the curve from the judged pieces of each question.

        Raises:
            ConfigurationError: If no piece depends on the threshold, or pieces depend on it in opposite senses.
        """
        flips = [[flip(j) for j in judgements] for judgements in questions]
        senses = {sense for found in flips for _, sense in found if sense}
        if not senses:
            raise ConfigurationError(
                f"no threshold makes a difference on these {len(questions)} questions: the trigger reports no scores, "
                "or they are all the same"
            )
        if len(senses) > 1:
            raise ConfigurationError(_NOT_MONOTONE)
        sense = senses.pop()
        return cls(tuple(np.asarray([_turned(value, own, sense) for value, own in found]) for found in flips), sense)

    def values(self, per: Per) -> list[Values]:
        """Return, for each question, the critical thresholds that the rate counts."""
        if per == "sentence":
            return list(self.criticals)
        return [v.min(keepdims=True) if len(v) else np.asarray([np.inf]) for v in self.criticals]

    def rate(self, threshold: float, per: Per) -> float:
        """Return the share of pieces or questions that fire at a threshold."""
        return float((np.concatenate(self.values(per)) < self.sense * threshold).mean())

    def firing(self, threshold: float) -> NDArray[np.int64]:
        """Return how many pieces of each question fire at a threshold, (questions,)."""
        return np.asarray([(v < self.sense * threshold).sum() for v in self.criticals], np.int64)

    def threshold(self, rate: float, per: Per, valid: Callable[[float], bool] = lambda _: True) -> float:
        """Return the threshold whose rate is nearest to the wanted one, midway between two critical thresholds.

        Args:
            rate: Wanted share.
            per: What the rate is a share of.
            valid: Whether the trigger accepts a threshold.
        """
        return self._settled(np.concatenate(self.values(per)), rate, valid)

    def bootstrap(self, rate: float, per: Per, *, samples: int, seed: int) -> Values:
        """Return the thresholds found on questions drawn with replacement, (samples,)."""
        groups = self.values(per)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(groups), (samples, len(groups)))
        return np.asarray([self._settled(np.concatenate([groups[i] for i in d]), rate, lambda _: True) for d in drawn])

    def rate_interval(self, threshold: float, per: Per, *, samples: int, seed: int) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the rate at a threshold."""
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
    """Return signed thresholds at which the share of smaller criticals is nearest to a rate, the best choice first.

    Between two criticals the threshold is their midpoint; beyond the first or last one it lies slightly outside, or at
    the next representable number. If two rates are equally near, the lower one is used.
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
    """Return the critical threshold of a piece, and whether it fires above (1) or below (-1) it.

    The critical threshold of a piece that always fires is negative infinity, of one that never fires positive infinity;
    the sense is 0 for both.
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
    """Return the central 95 % interval of bootstrap samples."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def check(curve: Curve, questions: Sequence[Sequence[JudgedPiece]], threshold: float) -> None:
    """Judge every piece at the chosen threshold, and compare with what the curve predicts.

    Raises:
        ConfigurationError: If they differ, because the trigger is not monotone in its threshold.
    """
    for found, judgements in zip(curve.criticals, questions, strict=True):
        for critical, judgement in zip(found, judgements, strict=True):
            if bool(judgement.fires(threshold)) != bool(critical < curve.sense * threshold):
                raise ConfigurationError(_NOT_MONOTONE)


def _turned(value: float, own: int, sense: int) -> float:
    return value * sense if own else value


_NOT_MONOTONE = (
    "the trigger is not monotone in its threshold: as the threshold rises, it starts to fire on some pieces of text "
    "and stops firing on others. Such a trigger cannot be calibrated; set its threshold by hand."
)
