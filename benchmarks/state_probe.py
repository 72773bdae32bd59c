"""A probe on hidden states: whether they tell where retrieval is needed, alone or beside a trigger's features.

Logistic regression on the standardised states of one depth. The depth and the strength of the penalty are those with
the largest area in cross-validation over the training questions. The probe's log-odds are then one more feature:
of the training points from models that did not see their questions, of the others from the model of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langgraph_dynrag.calibration.training import folds_of

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Inverse strengths of the penalty to choose from."""


def probe(
    states: NDArray[np.float32], needed: Sequence[bool], questions: Sequence[int], others: NDArray[np.float32]
) -> tuple[list[float], list[float], int]:
    """Train a probe.

    Args:
        states: Of the training points, (points, depths, width).
        needed: Their labels.
        questions: Numbers of their questions.
        others: States to judge, (points, depths, width).

    Returns:
        Log-odds of the training points, from models that did not see their questions; of the others; and the depth.
    """
    from sklearn.metrics import roc_auc_score

    labels = np.asarray(needed)
    fold_of = folds_of(questions, 5)

    def out_of_fold(depth: int, penalty: float) -> NDArray[np.float64]:
        scores = np.zeros(len(labels))
        for fold in np.unique(fold_of):
            held_out = fold_of == fold
            fitted = _fitted(states[~held_out, depth], labels[~held_out], penalty)
            scores[held_out] = fitted.decision_function(states[held_out, depth])
        return scores

    tried = {(d, p): out_of_fold(d, p) for d in range(states.shape[1]) for p in PENALTIES}
    depth, penalty = max(tried, key=lambda of: roc_auc_score(labels, tried[of]))
    final = _fitted(states[:, depth], labels, penalty)
    judged = final.decision_function(others[:, depth])
    return tried[depth, penalty].tolist(), [float(score) for score in judged], depth


def _fitted(states: NDArray[np.float32], labels: NDArray[np.bool_], penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=200)).fit(states, labels)
