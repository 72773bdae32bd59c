"""Selections of adapters: weights, merging, and what is refused."""

import numpy as np
import pytest

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, orthogonalise, weigh
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.adapters.conftest import TEXTS
from tests.llamaindex_prag.made import keys, random_values


def test_orthogonal_updates_count_shared_parts_once(layout):
    shared = random_values(layout, 1)
    buffers = [shared.copy(), shared.copy()]
    orthogonalise(layout, buffers)
    assert np.array_equal(buffers[0], shared)
    for _, _, b in layout.factors(buffers[1]):
        assert np.abs(b).max() < 1e-5


def test_orthogonal_updates_match_the_projection_formula(layout):
    buffers = [random_values(layout, i) for i in range(3)]
    before = [buffer.copy() for buffer in buffers]
    orthogonalise(layout, buffers)
    for number, (target, _, _) in enumerate(layout.factors(before[0])):
        seen = np.zeros((target.outputs, 0))
        for i in range(3):
            b = list(layout.factors(before[i]))[number][2].astype(np.float64)
            expected = b - seen @ np.linalg.pinv(seen) @ b if seen.shape[1] else b
            assert np.allclose(list(layout.factors(buffers[i]))[number][2], expected, atol=1e-4)
            seen = np.concatenate([seen, b], axis=1)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda b: b.select([]), AdapterError, "at least one"),
        (lambda b: b.select(keys(*TEXTS)), AdapterError, "room for 3"),
        (lambda b: b.select(keys("a"), merge="average"), ConfigurationError, "known: mean, sum"),
        (lambda b: b.select(keys("a"), merge="score"), AdapterError, "scores"),
        (lambda b: b.select(keys("a", "b"), merge="score", scores=[1.0, -1.0]), AdapterError, "non-negative"),
        (lambda b: b.select(keys("a"), strength=float("nan")), ConfigurationError, "strength"),
    ],
)
def test_impossible_selections_are_refused(bank, build, error, message):
    with pytest.raises(error, match=message):
        build(bank)


def test_a_duplicate_document_in_a_selection_counts_once():
    assert ActiveAdapters.of(keys("a", "a")) == ActiveAdapters.of(keys("a"))


def test_each_merge_has_the_weights_of_its_formula():
    def weights(merge, **options):
        return ActiveAdapters.of(keys("a", "b"), merge=merge, **options).weights

    assert weights("sum") == (1.0, 1.0)
    assert weights("mean") == weights("orthogonal") == (0.5, 0.5)
    assert weights("score", scores=[3.0, 1.0]) == (0.75, 0.25)
    assert weights("sum", strength=0.5) == (0.5, 0.5)
    assert weights("mean", strength=[1.0, 0.2]) == pytest.approx((0.5, 0.1))


def test_of_a_repeated_key_the_higher_score_and_strength_count():
    found = ActiveAdapters.of(keys("a", "b", "a"), merge="score", scores=[1.0, 2.0, 6.0], strength=[0.5, 1.0, 0.25])
    assert found.keys == tuple(keys("a", "b"))
    assert found.weights == pytest.approx((0.75 * 0.5, 0.25))


def test_whatever_changes_the_weights_changes_the_cache_key():
    one = ActiveAdapters.of(keys("a", "b"))
    others = [
        ActiveAdapters.of(keys("b", "a")),
        ActiveAdapters.of(keys("a", "b"), merge="sum"),
        ActiveAdapters.of(keys("a", "b"), merge="orthogonal"),
        ActiveAdapters.of(keys("a", "b"), version=1),
        one.times(0.5),
    ]
    assert len({one.cache_key, *(other.cache_key for other in others)}) == 6
    assert one.times(0.5).weights == (0.25, 0.25)
    assert ActiveAdapters.of(keys("a", "b")).cache_key == one.cache_key


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"strength": [1.0]}, "1 strengths for 2 adapters"),
        ({"scores": [1.0]}, "1 scores for 2 adapters"),
        ({"merge": "score", "scores": [0.0, 0.0]}, "not all 0"),
        ({"strength": [0.0, 0.0]}, "finite number above 0"),
    ],
)
def test_numbers_that_do_not_fit_the_adapters_are_refused(options, reason):
    with pytest.raises((AdapterError, ConfigurationError), match=reason):
        ActiveAdapters.of(keys("a", "b"), **options)


def test_weighing_multiplies_b_and_leaves_a(layout):
    buffers = [random_values(layout, i) for i in range(2)]
    before = [buffer.copy() for buffer in buffers]
    weigh(layout, ActiveAdapters.of(keys("a", "b"), strength=[1.0, 0.5]), buffers, [4.0, 2.0])
    for buffer, old, factor in zip(buffers, before, (2.0, 0.5), strict=True):  # 1/2 x 4, and 1/4 x 2
        assert np.array_equal(buffer[: layout.a_size], old[: layout.a_size])
        assert np.allclose(buffer[layout.a_size :], factor * old[layout.a_size :])
