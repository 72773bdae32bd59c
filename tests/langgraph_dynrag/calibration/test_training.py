"""Training: the plain numbers agree with scikit-learn, and folds hold whole questions."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from langgraph_dynrag.calibration.measures import calibration_error, roc_area, roc_area_difference
from langgraph_dynrag.calibration.training import (
    LabelledPoint,
    TooFewPointsError,
    estimator_of,
    fit,
    folds_of,
    isotonic_knots,
    train,
)
from langgraph_dynrag.triggers.learned_model import LearnedModel, calibrated

pytest.importorskip("sklearn")

NAMES = ["least_logprob", "names", "mean_entropy", "evidence_in_prompt"]


def drawn(count, seed=0, *, missing=0.1):
    """Return points whose need depends on two of the features; the last one is the same everywhere."""
    rng = np.random.default_rng(seed)
    points = []
    for i in range(count):
        x = [float(-rng.exponential(1.5)), float(rng.integers(0, 5)), float(rng.gamma(2.0, 0.8)), 0.0]
        p = 1 / (1 + np.exp(1.0 + 1.2 * x[0] - 0.4 * x[1]))
        values = [None if rng.random() < missing and j < 3 else v for j, v in enumerate(x)]
        points.append(LabelledPoint(i // 4, dict(zip(NAMES, values, strict=True)), bool(rng.random() < p)))
    return points


def matrix(points):
    x = np.asarray([[p.values[n] for n in NAMES] for p in points], float)
    return np.where(np.isnan(x), np.nanmean(x, axis=0), x)


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_applying_agrees_with_scikit_learn(kind):
    """Independently: imputed and standardised with NumPy, and predicted by scikit-learn itself."""
    points, new = drawn(300), drawn(200, seed=1)
    x, y = matrix(points), [p.needed for p in points]
    seen = np.asarray([[p.values[n] for n in NAMES] for p in new], float)
    seen = np.where(np.isnan(seen), x.mean(0), seen)
    if kind == "logistic":
        scale = np.where(x.std(0) > 0, x.std(0), 1)
        seen, x = (seen - x.mean(0)) / scale, (x - x.mean(0)) / scale
    expected = estimator_of(kind).fit(x, y).predict_proba(seen)[:, 1]
    model = LearnedModel.of(json.loads(json.dumps(asdict(fit(points, NAMES, kind=kind)))))
    found = [model.uncalibrated([p.values[n] for n in NAMES]) for p in new]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert np.ptp(expected) > 0.3


def test_calibration_agrees_with_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(3)
    scores = rng.random(120)
    labels = rng.random(120) < scores**2
    expected = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels.astype(float))
    new = np.linspace(-0.2, 1.2, 300)
    knots = isotonic_knots(scores, labels)
    np.testing.assert_allclose([calibrated(float(p), knots) for p in new], expected.predict(new), atol=1e-9)


def test_folds_hold_whole_questions():
    groups = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6, 0]
    found = folds_of(groups, 3)
    assert all(len({f for f, g in zip(found, groups, strict=True) if g == group}) == 1 for group in set(groups))
    assert set(found) == {0, 1, 2}
    assert set(folds_of([0, 0, 1], 5)) == {0, 1}  # no more folds than questions


def test_out_of_fold_scores_know_nothing_of_the_question():
    """Labels are a property of the question here, which only a model that has seen the question could repeat."""
    rng = np.random.default_rng(5)
    needed = rng.random(60) < 0.5
    points = [
        LabelledPoint(q, {"least_logprob": float(q), "names": float(rng.random())}, bool(needed[q]))
        for q in range(60)
        for _ in range(4)
    ]
    leaky = fit(points, ["least_logprob", "names"], kind="trees")
    known = roc_area([leaky.uncalibrated((p.values["least_logprob"], 0.5)) for p in points], [p.needed for p in points])
    found = train(points, ["least_logprob", "names"], kind="trees")
    assert known[0] > 0.8
    assert found.auroc < 0.65


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_training_ranks_and_calibrates(kind):
    points = drawn(400)
    found = train(points, NAMES, kind=kind)
    assert found.auroc_interval[0] < found.auroc < found.auroc_interval[1]
    assert found.auroc > 0.65
    assert found.calibration_error < 0.12
    assert (found.points, found.needed) == (400, sum(p.needed for p in points))
    assert found.model.features == tuple(NAMES[:3])  # the constant one is left out
    assert train(points, NAMES, kind=kind) == found
    low, high = found.model.probability((-0.1, 0.0, 1.0)), found.model.probability((-5.0, 4.0, 1.0))
    assert low < 0.5 < 0.7 < high  # of the points they were drawn with, 0.29 and 0.998


def test_expected_calibration_error_by_hand():
    # bins: 0.1-0.2 holds 0.15 (no) and 0.18 (yes), 0.9-1.0 holds 0.95 (yes) and 1.0 (no)
    expected = abs(0.5 - 0.165) / 2 + abs(0.5 - 0.975) / 2
    assert calibration_error([0.15, 0.95, 0.18, 1.0], [False, True, True, False]) == pytest.approx(expected)
    assert calibration_error([0.25] * 4, [True, False, False, False]) == pytest.approx(0)


def test_a_difference_of_areas_is_paired():
    rng = np.random.default_rng(0)
    labels = (rng.random(120) < 0.4).tolist()
    better = [y + float(rng.normal()) for y in labels]
    worse = [0.2 * b + float(rng.normal()) for b in better]
    found = roc_area_difference(better, worse, labels)
    assert found[0] == pytest.approx(roc_area(better, labels)[0] - roc_area(worse, labels)[0])
    assert found[1] < found[0] < found[2]
    shifted = [2 * b + 1 for b in better]  # the same order: no difference in any sample
    assert roc_area_difference(better, shifted, labels) == (0, 0, 0)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (drawn(49), "49 labelled sentences.*50"),
        ([LabelledPoint(p.question, p.values, False) for p in drawn(60)], "needed at 0 of 60"),
        ([LabelledPoint(p.question, p.values, True) for p in drawn(60)], "needed at 60 of 60"),
        ([LabelledPoint(0, p.values, p.needed) for p in drawn(60)], "one question"),
        ([LabelledPoint(i, dict.fromkeys(NAMES, 1.0), i % 2 == 0) for i in range(60)], "features are the same"),
        ([LabelledPoint(i // 4, p.values, i < 4) for i, p in enumerate(drawn(60))], "few questions"),
    ],
)
def test_what_teaches_nothing_is_refused(points, message):
    with pytest.raises(TooFewPointsError, match=message):
        train(points, NAMES)
