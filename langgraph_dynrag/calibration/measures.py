"""How well probabilities rank and how far they are off: area under the ROC curve, expected calibration error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def roc_area(
    scores: Sequence[float], labels: Sequence[bool], *, groups: Sequence[object] | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Return the area under the ROC curve, and its 95 % interval from 2,000 bootstrap samples of whole groups.

    The area is how often a "yes" has a higher score than a "no", where ties count half; nan unless both labels occur.
    """
    value, label = np.asarray(scores, float), np.asarray(labels, bool)
    return _with_interval(lambda at: _area(value[at], label[at]), len(value), groups, seed)


def roc_area_difference(
    scores: Sequence[float],
    others: Sequence[float],
    labels: Sequence[bool],
    *,
    groups: Sequence[object] | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return how much larger the area of `scores` is than that of `others` for the same labels, with its interval.

    Both areas come from the same bootstrap samples, so that the interval is one of paired values.
    """
    value, other, label = np.asarray(scores, float), np.asarray(others, float), np.asarray(labels, bool)
    return _with_interval(
        lambda at: _area(value[at], label[at]) - _area(other[at], label[at]), len(value), groups, seed
    )


def _with_interval(
    measure: Callable[[Any], float], count: int, groups: Sequence[object] | None, seed: int
) -> tuple[float, float, float]:
    """Return a measure of the points at given indices, for all of them, with its bootstrap interval over groups."""
    keys = np.unique([str(g) for g in (groups or range(count))], return_inverse=True)[1]
    members = [np.flatnonzero(keys == k) for k in range(keys.max() + 1)] if count else []
    rng = np.random.default_rng(seed)
    drawn = [
        measure(np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]))
        for _ in range(2_000 if members else 0)
    ]
    usable = [area for area in drawn if area == area]  # noqa: PLR0124 - not nan
    low, high = np.percentile(usable, [2.5, 97.5]) if usable else (float("nan"), float("nan"))
    return measure(np.arange(count)), float(low), float(high)


def _area(scores: Any, labels: Any) -> float:
    yes, no = scores[labels], scores[~labels]
    if not len(yes) or not len(no):
        return float("nan")
    above = (yes[:, None] > no[None]).mean() + (yes[:, None] == no[None]).mean() / 2
    return float(above)


def calibration_error(probabilities: Sequence[float], labels: Sequence[bool], *, bins: int = 10) -> float:
    """Return the expected calibration error: over bins of equal width, the mean of |share of "yes" - mean probability|.

    Each bin is weighted by its share of the probabilities (Guo et al. 2017, equation 3).
    """
    p, label = np.asarray(probabilities, float), np.asarray(labels, float)
    if not len(p):
        return float("nan")
    at = np.minimum((p * bins).astype(int), bins - 1)
    return sum(float(abs((label[at == b] - p[at == b]).sum())) for b in range(bins)) / len(p)
