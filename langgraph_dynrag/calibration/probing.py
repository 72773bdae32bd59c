"""Train a probe on hidden states with scikit-learn: logistic regression on the standardised states of one depth.

The depth and the strength of the penalty are those with the largest area under the ROC curve in cross-validation over
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langgraph_dynrag.calibration.folds import TooFewPointsError, folds_of
from langgraph_dynrag.drafts.draft import Floats
from langgraph_dynrag.triggers.probe import DEPTHS, Probe
from rag_backbone.extras import needed_for

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Inverse strengths of the penalty to choose from."""


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """A probe of all points, and what probes that did not see a point's question say of it."""

    probe: Probe
    out_of_fold: NDArray[np.float64]
    """Log-odds, (points,)."""


def fit_probe(states: Floats, needed: Sequence[bool], questions: Sequence[int], *, folds: int = 5) -> FittedProbe:
    """Train a probe.

    Args:
        states: Hidden states at `DEPTHS`, (points, depths, width).
        needed: Whether a retrieval was needed at each point.
        questions: Number of each point's question.
        folds: Number of folds; at most one per question.

    Raises:
        TooFewPointsError: If a fold would be trained on one label only.
        MissingExtraError: If scikit-learn is not installed.
    """
    with needed_for("a learned trigger"):
        from sklearn.metrics import roc_auc_score

    labels = np.asarray(needed)
    fold_of = folds_of(questions, folds)
    if any(len(set(labels[fold_of != fold].tolist())) < 2 for fold in np.unique(fold_of)):
        raise TooFewPointsError(
            "the sentences with one of the labels are all from a few questions, so that cross-validation cannot judge "
            "a probe; give more questions"
        )

    def out_of_fold(depth: int, penalty: float) -> NDArray[np.float64]:
        scores = np.zeros(len(labels))
        for fold in np.unique(fold_of):
            held_out = fold_of == fold
            fitted = _fitted(states[~held_out, depth], labels[~held_out], penalty)
            scores[held_out] = fitted.decision_function(states[held_out, depth])
        return scores

    tried = {(d, p): out_of_fold(d, p) for d in range(states.shape[1]) for p in PENALTIES}
    depth, penalty = max(tried, key=lambda of: roc_auc_score(labels, tried[of]))
    scaler, regression = _fitted(states[:, depth], labels, penalty)
    weights = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    return FittedProbe(Probe(DEPTHS[depth], tuple(weights.tolist()), intercept), tried[depth, penalty])


def _fitted(states: Floats, labels: NDArray[np.bool_], penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=penalty, max_iter=200)
    return make_pipeline(StandardScaler(), regression).fit(states.astype(np.float64), labels)
