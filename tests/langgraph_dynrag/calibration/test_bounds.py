"""Bounds on missed retrievals and on right sentences given up: against another form of it, and on simulated data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.calibration.bounds import abstain_threshold, least_points, missed_rank, missed_threshold
from langgraph_dynrag.calibration.folds import TooFewPointsError

scipy_stats = pytest.importorskip("scipy.stats")


@given(st.integers(0, 150), st.floats(0.02, 0.6), st.floats(0.5, 0.99))
def test_the_rank_is_that_of_the_beta_distribution(count, alpha, confidence):
    """The k-th of n uniform order statistics has a beta distribution: try every k."""
    slow = [k for k in range(1, count + 1) if scipy_stats.beta.sf(alpha, k, count - k + 1) <= 1 - confidence + 1e-12]
    found = missed_rank(count, alpha, confidence)
    assert (
        found == max(slow, default=0)
        or abs(scipy_stats.beta.sf(alpha, max(slow), count - max(slow) + 1) - (1 - confidence)) < 1e-9
    )


@pytest.mark.parametrize(("alpha", "confidence", "expected"), [(0.1, 0.9, 22), (0.05, 0.95, 59), (0.5, 0.5, 1)])
def test_published_numbers_of_points(alpha, confidence, expected):
    """Wilks's 59 for 95 % at 95 %; 22 for 90 % at 90 %."""
    assert least_points(alpha, confidence) == expected


def test_worked_example():
    # n = 3, half may be missed at 50 %: P(Bin(3, 1/2) <= 0) = 1/8, P(<= 1) = 1/2, P(<= 2) = 7/8
    assert missed_rank(3, 0.5, 0.5) == 2
    assert missed_threshold([0.9, 0.2, 0.4], 0.5, 0.5) == 0.4
    assert missed_threshold([0.9, 0.2, 0.4], 0.5, 0.6) == 0.2


@given(st.lists(st.integers(0, 8).map(lambda i: i / 8), min_size=22, max_size=60))
def test_giving_up_mirrors_missing(right):
    """As many lie at or above one as lie below the other of the opposite probabilities."""
    t = abstain_threshold(right, 0.1, 0.9)
    mirrored = missed_threshold([1 - p for p in right], 0.1, 0.9)
    assert [p >= t for p in right] == [1 - p < mirrored for p in right]
    assert math.nextafter(t, 0) in right  # the lowest: without this sentence's probability, it would be lower


def test_worked_example_of_giving_up():
    assert abstain_threshold([0.9, 0.2, 0.4], 0.5, 0.5) == math.nextafter(0.4, 1)
    assert abstain_threshold([0.9, 0.2, 0.4], 0.5, 0.6) == math.nextafter(0.9, 1)
    assert abstain_threshold([1.0, 0.2, 0.4], 0.5, 0.6) > 1  # never
    with pytest.raises(TooFewPointsError, match="given_up=0.1 .* needs 22 held-out questions .* there are 21"):
        abstain_threshold([0.5] * 21, 0.1, 0.9)


def test_too_few_points_say_how_many_are_needed():
    with pytest.raises(TooFewPointsError, match="needs 22 held-out questions .* there are 21"):
        missed_threshold([0.5] * 21, 0.1, 0.9)
    assert missed_threshold([0.5] * 22, 0.1, 0.9) == 0.5


@pytest.mark.parametrize("n", [25, 60, 200])
@pytest.mark.parametrize("levels", [None, 7])
def test_the_guarantee_holds_on_simulated_data(n, levels):
    """In at most 10 % of draws does the threshold miss more than 20 %, with ties and without."""
    rng = np.random.default_rng(n)
    runs, broken, missed = 4000, 0, []
    for _ in range(runs):
        u = rng.random(n) if levels is None else np.floor(rng.random(n) * levels) / levels
        t = missed_threshold(u.tolist(), 0.2, 0.9)  # P(p < t) is t in both cases
        missed.append(t)
        broken += t > 0.2 + 1e-12
    assert broken / runs <= 0.1 + 3 * np.sqrt(0.09 / runs)
    if levels is None:
        assert np.mean(missed) > 0.2 * (1 - 4 / np.sqrt(n))  # and it is not needlessly cautious
