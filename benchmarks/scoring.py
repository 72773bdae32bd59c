"""ROC curves; areas, means and intervals are those of `langgraph_dynrag`, scores of `rag_backbone.metrics`."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph_dynrag.calibration.measures import roc_area
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
