"""Tests that a stored representation is small, close to the original vectors, and validated when read."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llamaindex_prag.errors import AdapterDamagedError
from llamaindex_prag.translator.representation import Representation

vectors = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-1e4, 1e4, width=32)
)


@given(vectors)
@example(np.array([[2.52e-43, -1e-43]], np.float32))
@example(np.array([[1.5e-36, -1.5e-36]], np.float32))
def test_quantization_changes_every_value_by_at_most_half_a_step(values):
    kept = Representation.of(values)
    step = np.abs(values).max(1, keepdims=True) / 127
    nothing = 128 * np.finfo(np.float32).tiny  # below this, float32 cannot resolve the steps
    assert (np.abs(kept.vectors - values) <= np.maximum(step * 0.501, nothing)).all()
    assert kept.nbytes == values.size + 4 * len(values)


@given(vectors)
def test_a_representation_survives_a_round_trip_through_plain_data(values):
    kept = Representation.of(values)
    again = Representation.from_json(kept.to_json())
    assert np.array_equal(again.codes, kept.codes)
    assert np.array_equal(again.scales, kept.scales)


@pytest.mark.parametrize("change", [{"shape": [2, 9]}, {"codes": "%"}, {"scales": ""}, {"shape": None}])
def test_damaged_data_is_rejected(change):
    kept = Representation.of(np.ones((2, 3), np.float32)).to_json()
    with pytest.raises(AdapterDamagedError, match="representation"):
        Representation.from_json(kept | change)


def test_values_that_are_not_finite_are_rejected():
    with pytest.raises(AdapterDamagedError, match="not finite"):
        Representation.of(np.array([[1.0, np.nan]], np.float32))
