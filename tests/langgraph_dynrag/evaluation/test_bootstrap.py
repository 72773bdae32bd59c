"""Intervals of means."""

import numpy as np
import pytest

from langgraph_dynrag.evaluation.bootstrap import interval, mean


def test_the_interval_is_reproducible_and_close_to_the_normal_approximation():
    values = [0.0] * 30 + [1.0] * 20
    low, high = interval(values, seed=0)
    assert low < mean(values) < high
    error = np.sqrt(0.4 * 0.6 / 50)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert interval(values, seed=0) == (low, high)
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_resampling_groups_widens_the_interval():
    values, groups = [0.0] * 20 + [1.0] * 20, [i // 5 for i in range(40)]
    alone, together = interval(values), interval(values, groups=groups)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_no_values_have_no_mean():
    assert np.isnan([mean([]), *interval([])]).all()
