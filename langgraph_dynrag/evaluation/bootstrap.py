"""Means and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean(values: Sequence[float]) -> float:
    """Return the mean, or nan if there are no values."""
    return float(np.mean(values)) if len(values) else float("nan")


def interval(values: Sequence[float], *, groups: Sequence[object] | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean, from 10,000 bootstrap samples.

    Args:
        values: One value per question.
        groups: The group of each value (such as its document), if values are grouped; whole groups are then drawn.
        seed: Seed of the samples.
    """
    rng = np.random.default_rng(seed)
    keys = list(range(len(values))) if groups is None else list(groups)
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    sums, counts = np.zeros(len(order)), np.zeros(len(order))
    for key, value in zip(keys, values, strict=True):
        sums[order[key]] += value
        counts[order[key]] += 1
    if not order:
        return float("nan"), float("nan")
    drawn = rng.integers(0, len(order), (10_000, len(order)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
