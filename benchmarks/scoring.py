"""ROC curves; means and intervals are those of `langgraph_dynrag.evaluation`, scores of `rag_backbone.metrics`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langgraph_dynrag.evaluation.bootstrap import interval, mean

__all__ = ["interval", "mean", "roc", "roc_area"]


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


def roc_area(
    scores: Sequence[float], labels: Sequence[bool], *, groups: Sequence[object] | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Return the area under the ROC curve, and its 95 % interval from 2,000 bootstrap samples of whole groups.

    The area is how often a "yes" has a higher score than a "no", where ties count half; nan unless both labels occur.
    """
    value, label = np.asarray(scores, float), np.asarray(labels, bool)
    keys = np.unique([str(g) for g in (groups or range(len(value)))], return_inverse=True)[1]
    members = [np.flatnonzero(keys == k) for k in range(keys.max() + 1)] if len(value) else []
    rng = np.random.default_rng(seed)
    drawn = [
        _area(value[chosen], label[chosen])
        for _ in range(2_000 if members else 0)
        for chosen in [np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])]
    ]
    usable = [area for area in drawn if area == area]  # noqa: PLR0124 - not nan
    low, high = np.percentile(usable, [2.5, 97.5]) if usable else (float("nan"), float("nan"))
    return _area(value, label), float(low), float(high)


def _area(scores: np.ndarray, labels: np.ndarray) -> float:
    yes, no = scores[labels], scores[~labels]
    if not len(yes) or not len(no):
        return float("nan")
    above = (yes[:, None] > no[None]).mean() + (yes[:, None] == no[None]).mean() / 2
    return float(above)
