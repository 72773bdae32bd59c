"""Curves and ratios; areas, means and intervals are those of `langgraph_dynrag`, scores of `rag_backbone.metrics`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langgraph_dynrag.calibration.measures import roc_area
from langgraph_dynrag.evaluation.bootstrap import interval, mean

__all__ = ["interval", "mean", "ratio", "roc", "roc_area"]


def roc(scores: Sequence[float], labels: Sequence[bool]) -> list[tuple[float, float, float]]:
    """Return the points of a receiver operating characteristic: false alarms, hits, and the lowest score of a "yes".

    The points run from (0, 0) to (1, 1); equal scores give a single point.

    Raises:
        ValueError: If all labels are the same.
    """
    positive, negative = sum(labels), len(labels) - sum(labels)
    if not positive or not negative:
        raise ValueError("a curve needs both labels")
    points = [(0.0, 0.0, float("inf"))]
    for threshold in sorted(set(scores), reverse=True):
        said = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        points.append(((len(said) - sum(said)) / negative, sum(said) / positive, threshold))
    return points


def ratio(upper: Sequence[float], lower: Sequence[float], groups: Sequence[str]) -> tuple[float, list[float]]:
    """Return mean(upper) / mean(lower) with its 95 % interval, by bootstrap over groups of paired values."""
    rng = np.random.default_rng(0)
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((2, len(order)))
    for group, a, b in zip(groups, upper, lower, strict=True):
        sums[:, order[group]] += (a, b)
    if not order or not sums[1].any():
        return float("nan"), [float("nan")] * 2
    drawn = sums[:, rng.integers(0, len(order), (10_000, len(order)))].sum(-1)
    kept = drawn[:, drawn[1] > 0]
    low, high = np.percentile(kept[0] / kept[1], [2.5, 97.5])
    return float(sums[0].sum() / sums[1].sum()), [float(low), float(high)]
