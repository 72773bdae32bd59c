"""Selections of adapters: weights, merging, and what is refused."""

import numpy as np
import pytest

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, orthogonalise
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
