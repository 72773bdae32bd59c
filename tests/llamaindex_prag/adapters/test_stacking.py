"""Adapters stacked along the rank: one adapter with the weighted sum of their updates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, orthogonalise
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.stacking import stacked
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.made import InMemory, keys, random_values


def updates(layout, buffer):
    return [b.astype(np.float64) @ a.astype(np.float64) for _, a, b in layout.factors(buffer)]


def test_two_adapters_of_rank_one_are_stacked_row_by_row():
    layout = Layout((Target("q", 2, 1), Target("v", 1, 2)), 1)
    values = {  # A of q, A of v | B of q, B of v
        "a": np.array([1, 2, 3, 4, 5, 6], np.float32),
        "b": np.array([-1, -2, -3, -4, -5, -6], np.float32),
    }
    found = stacked(layout, InMemory(layout, values), ActiveAdapters.of(keys("a", "b"), strength=[1.0, 0.5]))
    # Both have scale 2 and are averaged, so that B of the first is multiplied by 1, that of the second by 0.5.
    assert found.buffer.tolist() == [1, 2, -1, -2, 3, -3, 4, -2, 5, 6, -2.5, -3]
    assert (found.layout, found.scale) == (Layout(layout.targets, 2), 1.0)
    assert values["a"].tolist() == [1, 2, 3, 4, 5, 6]  # what the source holds is left alone


@given(
    targets=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    weights=st.lists(st.floats(0.1, 2), min_size=1, max_size=4),
    orthogonal=st.booleans(),
)
@settings(max_examples=30)
def test_the_update_of_the_stack_is_the_weighted_sum_of_the_updates(targets, rank, weights, orthogonal):
    layout = Layout(tuple(Target(f"t{i}", *size) for i, size in enumerate(targets)), rank)
    names = [f"text {i}" for i in range(len(weights))]
    values = [random_values(layout, i) for i in range(len(weights))]
    source = InMemory(layout, dict(zip(names, values, strict=True)), scale=3.0)
    found = stacked(layout, source, ActiveAdapters(tuple(keys(*names)), tuple(weights), orthogonal))
    assert found.layout.rank == rank * len(weights)
    if orthogonal:
        orthogonalise(layout, values)
    parts = [updates(layout, buffer) for buffer in values]
    for number, update in enumerate(updates(found.layout, found.buffer)):
        expected = sum(3.0 * weight * part[number] for weight, part in zip(weights, parts, strict=True))
        assert np.allclose(update, expected, atol=1e-4)


def test_a_missing_adapter_is_refused():
    layout = Layout((Target("q", 2, 1),), 1)
    source = InMemory(layout, {"a": random_values(layout, 0)})
    with pytest.raises(AdapterError, match="no adapter"):
        stacked(layout, source, ActiveAdapters.of(keys("a", "b")))
