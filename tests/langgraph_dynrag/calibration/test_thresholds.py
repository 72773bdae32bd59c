"""Thresholds from judgements: a worked example, and each trigger compared with judging at every threshold."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.calibration.recorder import Recorder
from langgraph_dynrag.calibration.thresholds import Curve, JudgedPiece, check, flip, nearest_gap
from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.triggers import ETC, RIND, Entropy, TokenProbability
from langgraph_dynrag.triggers.threshold import with_threshold
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import causal_attention, random_draft, view_of


def view(*probabilities):
    pieces = tuple(f" w{i}" for i in range(len(probabilities)))
    logprobs = tuple(math.log(p) for p in probabilities)
    return DraftView("Q?", "", Draft(pieces, logprobs, None, None, "end"), len(pieces))


def judgements(trigger, views):
    recorder = Recorder(trigger)
    for v in views:
        assert not recorder.judge(v).retrieve
    return recorder.taken()


def test_worked_example():
    """Three questions, five sentences; FLARE compares the lowest probability of each with theta.

    question 1: 0.9 0.2 | 0.7          lowest: 0.2, 0.7
    question 2: 0.5 0.6 | 0.95 0.9     lowest: 0.5, 0.9
    question 3: 0.8                    lowest: 0.8
    """
    asked = [[view(0.9, 0.2), view(0.7)], [view(0.5, 0.6), view(0.95, 0.9)], [view(0.8)]]
    found = [judgements(TokenProbability(0.3), views) for views in asked]
    curve = Curve.of(found)
    assert curve.sense == 1
    assert [list(c) for c in curve.criticals] == [
        [pytest.approx(0.2), pytest.approx(0.7)],
        [pytest.approx(0.5), pytest.approx(0.9)],
        [pytest.approx(0.8)],
    ]
    # Two of the five sentences (sorted: 0.2 0.5 0.7 0.8 0.9) fire if theta is midway between 0.5 and 0.7.
    assert curve.threshold(0.4, "sentence") == pytest.approx(0.6)
    assert curve.rate(0.6, "sentence") == 0.4
    assert curve.rate(0.6, "question") == pytest.approx(2 / 3)
    assert curve.firing(0.6).tolist() == [1, 1, 0]
    # By the least certain sentence of each question (0.2 0.5 0.8), one of three is midway between 0.2 and 0.5.
    assert curve.threshold(1 / 3, "question") == pytest.approx(0.35)
    # 0.45 is nearer to two of five than to three; 0.5 is equally near to both, and the cheaper one is used.
    assert curve.threshold(0.45, "sentence") == curve.threshold(0.5, "sentence") == pytest.approx(0.6)
    # Beyond the ends, the threshold lies slightly outside.
    assert curve.threshold(0.0, "sentence") < 0.2
    assert 0.9 < curve.threshold(1.0, "sentence") < 1.0
    for rate in (0.0, 0.4, 1.0):
        check(curve, found, curve.threshold(rate, "sentence"))


@pytest.mark.parametrize(
    "trigger",
    [
        TokenProbability(0.5),
        TokenProbability(0.5, "mean"),
        Entropy(1.0),
        Entropy(1.0, content_only=False),
        RIND(0.1),
        ETC(0.5),
    ],
    ids=str,
)
def test_rates_from_counting_equal_rates_from_judging_at_every_threshold(trigger):
    rng = np.random.default_rng(3)
    views = []
    for _ in range(12):
        words = [f" {w}" for w in rng.choice(["river", "the", "Tamsin", "of", "bridge", "mason", "built"], 9)]
        draft = random_draft(rng, words)
        views.append(view_of(draft, causal_attention(rng, 2, 9 + 4 + 2 + 2 + 1), [" Who", " built"], [" It"]))
    asked = [views[:5], views[5:6], views[6:]]
    found = [judgements(trigger, v) for v in asked]
    curve = Curve.of(found)
    scores = sorted({s for group in found for j in group for s in j.scores})
    for low, high in pairwise(scores):
        threshold = (low + high) / 2
        slow = [with_threshold(trigger, threshold).judge(v).retrieve for v in views]
        assert curve.rate(threshold, "sentence") == pytest.approx(np.mean(slow))
        by_question = [any(slow[:5]), any(slow[5:6]), any(slow[6:])]
        assert curve.rate(threshold, "question") == pytest.approx(np.mean(by_question))


def test_the_critical_threshold_takes_logarithmically_many_calls():
    calls = 0

    def fires(threshold):
        nonlocal calls
        calls += 1
        return threshold < 0.777

    scores = tuple(np.linspace(0, 1, 1000))
    critical, sense = flip(JudgedPiece(fires, (*scores, 0.777)))
    assert (critical, sense) == (0.777, -1)
    assert calls <= 14


@given(
    st.lists(st.floats(-5, 5) | st.just(math.inf) | st.just(-math.inf), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_no_other_threshold_comes_nearer_to_the_rate(criticals, rate):
    values = np.asarray(criticals)
    finite = sorted({v for v in criticals if math.isfinite(v)})
    reachable = {
        float((values < t).mean())
        for t in [
            *((a + b) / 2 for a, b in pairwise(finite)),
            *([finite[0] - 1, finite[-1] + 1] if finite else [0.0]),
        ]
    }
    chosen = nearest_gap(values, rate)[0]
    got = float((values < chosen).mean())
    assert abs(got - rate) <= min(abs(r - rate) for r in reachable) + 1e-9


def test_thresholds_that_a_trigger_does_not_accept_are_skipped():
    """Entropy is at least 0, RIND and ETC accept no negative threshold, and a probability is at most 1."""
    sure = judgements(TokenProbability(), [view(1.0), view(0.5)])
    curve = Curve.of([sure])
    assert curve.criticals[0].tolist() == [math.inf, pytest.approx(0.5)]
    valid = [t for r in (0, 0.5, 1.0) if 0 <= (t := curve.threshold(r, "sentence", lambda t: 0 <= t <= 1)) <= 1]
    assert len(valid) == 3
    assert curve.rate(valid[-1], "sentence") == 0.5  # a sentence that is certain never fires


def test_a_trigger_that_is_not_monotone_is_refused():
    wild = [[JudgedPiece(lambda t: t < 1, (1.0,))], [JudgedPiece(lambda t: t > 2, (2.0,))]]
    with pytest.raises(ConfigurationError, match="not monotone"):
        Curve.of(wild)
    hollow = JudgedPiece(lambda t: t < 1 or 2 < t < 3, (1.0, 2.0, 3.0, 0.0))
    curve = Curve.of([[hollow]])
    with pytest.raises(ConfigurationError, match="not monotone"):
        check(curve, [[hollow]], 2.5)


def test_a_threshold_that_makes_no_difference_is_refused():
    with pytest.raises(ConfigurationError, match="no threshold makes a difference on these 1 questions"):
        Curve.of([[JudgedPiece(lambda _: True, (1.0, 2.0)), JudgedPiece(lambda _: False, ())]])


def test_more_questions_give_a_narrower_interval_around_the_threshold():
    rng = np.random.default_rng(0)
    widths = []
    for n in (10, 160):
        curve = Curve(tuple(rng.uniform(0, 1, rng.integers(1, 5)) for _ in range(n)), 1)
        samples = curve.bootstrap(0.4, "sentence", samples=400, seed=1)
        low, high = np.percentile(samples, [2.5, 97.5])
        assert low <= curve.threshold(0.4, "sentence") <= high
        widths.append(high - low)
        assert samples.tolist() == curve.bootstrap(0.4, "sentence", samples=400, seed=1).tolist()
    assert widths[1] < widths[0] / 2


def test_the_interval_covers_the_true_threshold_as_often_as_stated():
    """With uniform criticals the threshold equals the rate, so the true threshold for a rate of 0.4 is 0.4."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(80):
        curve = Curve(tuple(rng.uniform(0, 1, rng.integers(1, 4)) for _ in range(40)), 1)
        low, high = np.percentile(curve.bootstrap(0.4, "sentence", samples=200, seed=1), [2.5, 97.5])
        held += low <= 0.4 <= high
    assert held >= 70  # 76 are expected; fewer than 70 would happen about once in a hundred
