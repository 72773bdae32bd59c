"""What is kept of a document: small, close to what it was, and checked when it is read."""

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
def test_every_value_is_within_half_a_step_of_what_it_was(values):
    kept = Representation.of(values)
    step = np.abs(values).max(1, keepdims=True) / 127
    nothing = 128 * np.finfo(np.float32).tiny  # whose steps float32 cannot tell apart
    assert (np.abs(kept.vectors - values) <= np.maximum(step * 0.501, nothing)).all()
    assert kept.nbytes == values.size + 4 * len(values)


@given(vectors)
def test_plain_data_gives_it_back(values):
    kept = Representation.of(values)
    again = Representation.from_json(kept.to_json())
    assert np.array_equal(again.codes, kept.codes)
    assert np.array_equal(again.scales, kept.scales)


@pytest.mark.parametrize("change", [{"shape": [2, 9]}, {"codes": "%"}, {"scales": ""}, {"shape": None}])
def test_what_was_damaged_is_refused(change):
    kept = Representation.of(np.ones((2, 3), np.float32)).to_json()
    with pytest.raises(AdapterDamagedError, match="representation"):
        Representation.from_json(kept | change)


def test_what_is_not_finite_is_refused():
    with pytest.raises(AdapterDamagedError, match="not finite"):
        Representation.of(np.array([[1.0, np.nan]], np.float32))
