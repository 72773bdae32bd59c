"""Train the model of a learned trigger with scikit-learn, and judge it by cross-validation over questions.

Sentences of one question are alike, so a fold holds whole questions. The final model is trained on all points; its
calibration is an isotonic regression on the out-of-fold scores. Every figure and every probability that is reported for
a point comes from a model that was not trained on its question, and from a calibration fitted on other questions'
scores (the models behind those scores did see the point's question).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langgraph_dynrag.calibration.folds import TooFewPointsError, folds_of
from langgraph_dynrag.calibration.measures import calibration_error, roc_area
from langgraph_dynrag.calibration.probing import fit_probe
from langgraph_dynrag.drafts.draft import Floats
from langgraph_dynrag.triggers.learned_model import LearnedModel, ModelKind, Tree, calibrated
from langgraph_dynrag.triggers.probe import DEPTHS, Probe
from rag_backbone.extras import needed_for

LEAST_POINTS = 50
"""With fewer points, a learned model would follow chance."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelledPoint:
    """A sentence of a draft, and whether a retrieval was needed there."""

    question: int
    """Number of its question, whose sentences stay together."""
    values: Mapping[str, float | None]
    """Feature to value; None: it has no value here."""
    needed: bool
    states: Floats | None = field(default=None, compare=False, repr=False)
    """Hidden states of the sentence at the depths of `triggers.probe`, (depths, width), for a probe."""
    right_with_passages: bool = False
    """Whether it was right, and written with passages in the prompt."""

    def inputs(self, model: LearnedModel) -> list[float | None]:
        """Return what the model weighs at this point."""
        values = [self.values[name] for name in model.features]
        if model.probe is None:
            return values
        assert self.states is not None
        return [*values, model.probe.log_odds(self.states[DEPTHS.index(model.probe.depth)])]


@dataclass(frozen=True)
class Trained:
    """A model with the figures of its cross-validation."""

    model: LearnedModel
    auroc: float
    """Area under the ROC curve of the out-of-fold scores."""
    auroc_interval: tuple[float, float]
    """95 % bootstrap interval over questions."""
    calibration_error: float
    """Expected calibration error, 10 bins, of the out-of-fold probabilities."""
    probabilities: tuple[float, ...]
    """Out-of-fold probability of each point, calibrated on the other folds."""
    points: int
    needed: int


def train(
    points: Sequence[LabelledPoint],
    features: Sequence[str],
    *,
    kind: ModelKind = "logistic",
    folds: int = 5,
    seed: int = 0,
) -> Trained:
    """Train a model and judge it by cross-validation.

    Args:
        points: Labelled sentences of at least two questions.
        features: The features to weigh. Those that are the same at every point are left out.
        kind: Logistic regression, or gradient-boosted trees.
        folds: Number of folds; at most one per question.
        seed: Seed of the trees and the bootstrap.

    Raises:
        TooFewPointsError: If there are fewer than 50 points, or a fold would be trained on one label only.
        MissingExtraError: If scikit-learn is not installed.
    """
    used = _checked(points, features)
    labels = [p.needed for p in points]
    groups = [p.question for p in points]
    fold_of = folds_of(groups, folds)
    scores = np.zeros(len(points))
    for fold in np.unique(fold_of):
        rest = [p for p, f in zip(points, fold_of, strict=True) if f != fold]
        if len({p.needed for p in rest}) < 2:
            raise TooFewPointsError(
                "the sentences with one of the labels are all from a few questions, so that cross-validation cannot "
                "judge a model; give more questions"
            )
        model = fit(rest, used, kind=kind, seed=seed)
        for i in np.flatnonzero(fold_of == fold).tolist():
            scores[i] = model.uncalibrated(points[i].inputs(model))
    probabilities = np.zeros(len(points))
    for fold in np.unique(fold_of):
        others = fold_of != fold
        knots = isotonic_knots(scores[others], np.asarray(labels)[others])
        probabilities[~others] = [calibrated(float(s), knots) for s in scores[~others]]
    area, low, high = roc_area(scores.tolist(), labels, groups=groups, seed=seed)
    final = fit(points, used, kind=kind, seed=seed)
    return Trained(
        replace(final, calibration=isotonic_knots(scores, np.asarray(labels))),
        area,
        (low, high),
        calibration_error(probabilities.tolist(), labels),
        tuple(probabilities.tolist()),
        len(points),
        sum(labels),
    )


def fit(points: Sequence[LabelledPoint], features: Sequence[str], *, kind: ModelKind, seed: int = 0) -> LearnedModel:
    """Return an uncalibrated model of the points, which must have both labels; with a probe if they have states.

    The probe's log-odds are one more input. Those to train on come from probes that did not see the point's question.
    """
    x = np.asarray([_row(p, features) for p in points], np.float64)  # (points, features); None becomes nan
    y = np.asarray([p.needed for p in points])
    probe = None
    if (states := [p.states for p in points if p.states is not None]) and len(states) == len(points):
        fitted = fit_probe(np.stack(states), y.tolist(), [p.question for p in points])
        probe, x = fitted.probe, np.column_stack([x, fitted.out_of_fold])
    known = ~np.isnan(x)
    means = np.where(known, x, 0).sum(0) / np.maximum(known.sum(0), 1)
    filled = np.where(known, x, means)
    deviations = filled.std(0)
    scales = np.where(deviations > 0, deviations, 1.0)
    estimator = estimator_of(kind, seed)
    estimator.fit((filled - means) / scales if kind == "logistic" else filled, y)
    return converted(estimator, features, means, scales, probe)


def estimator_of(kind: ModelKind, seed: int = 0) -> Any:
    """Return scikit-learn's estimator of a kind; small trees, because users have few points."""
    with needed_for("a learned trigger"):
        from sklearn.ensemble import GradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

    if kind == "logistic":
        return LogisticRegression(C=1.0, max_iter=1000)
    # Not HistGradientBoostingClassifier: its trees cannot be read through a public interface.
    return GradientBoostingClassifier(
        n_estimators=50, max_depth=2, learning_rate=0.1, min_samples_leaf=10, random_state=seed
    )


def converted(
    estimator: Any, features: Sequence[str], means: Values, scales: Values, probe: Probe | None = None
) -> LearnedModel:
    """Return the plain numbers of a fitted estimator.

    Args:
        estimator: A `LogisticRegression` of standardised features, or a `GradientBoostingClassifier` of raw ones.
        features: The features' names.
        means: (inputs,), in place of missing values, and subtracted before standardising.
        scales: (inputs,), divided by when standardising.
        probe: The probe whose log-odds are the last input, after the features.
    """
    about: dict[str, Any] = {"features": tuple(features), "means": means.tolist(), "scales": scales.tolist()}
    about["probe"] = probe
    if hasattr(estimator, "coef_"):
        weights = estimator.coef_[0].tolist()
        return LearnedModel("logistic", intercept=float(estimator.intercept_[0]), weights=weights, **about)
    trees = tuple(_tree(each.tree_, estimator.learning_rate) for each in estimator.estimators_[:, 0])
    one = means.astype(np.float32).astype(np.float64)
    added = sum(tree.leaf(one.tolist()) for tree in trees)
    intercept = float(estimator.decision_function(one[None])[0]) - added
    return LearnedModel("trees", intercept=intercept, trees=trees, **about)


def isotonic_knots(scores: Values, labels: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return the knots of an isotonic regression of the labels on the scores."""
    with needed_for("a learned trigger"):
        from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels.astype(np.float64))
    return tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))


def _tree(tree: Any, rate: float) -> Tree:
    inner = tree.children_left >= 0
    return Tree(
        np.where(inner, tree.feature, -1).tolist(),
        np.where(inner, tree.threshold, 0.0).tolist(),
        tree.children_left.tolist(),
        tree.children_right.tolist(),
        np.where(inner, 0.0, rate * tree.value[:, 0, 0]).tolist(),
    )


def _checked(points: Sequence[LabelledPoint], features: Sequence[str]) -> list[str]:
    """Return the features that differ among the points."""
    needed = sum(p.needed for p in points)
    if len(points) < LEAST_POINTS:
        raise TooFewPointsError(
            f"there are {len(points)} labelled sentences, at {needed} of which a retrieval was needed; at least "
            f"{LEAST_POINTS} are needed to learn a trigger: give more questions, or calibrate the least token "
            "probability, which needs fewer: calibrate(..., preset='flare')"
        )
    if needed in (0, len(points)):
        raise TooFewPointsError(
            f"a retrieval was needed at {needed} of {len(points)} sentences, so there is nothing to tell apart; check "
            "that the answers are right and that the retriever finds what they rest on"
        )
    if len({p.question for p in points}) < 2:
        raise TooFewPointsError("all labelled sentences are of one question; cross-validation needs at least 2")
    used = [name for name in features if len({p.values[name] for p in points} - {None}) > 1]
    if not used:
        raise TooFewPointsError(f"all features are the same at every sentence: {', '.join(features)}")
    return used


def _row(point: LabelledPoint, features: Sequence[str]) -> list[Any]:
    return [point.values[name] for name in features]
