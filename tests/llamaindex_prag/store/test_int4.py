"""Four bits per value: sizes, values that are restored exactly, and the error of the others."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.errors import AdapterRefusedError
from llamaindex_prag.store.int4 import GROUP, dequantize_into, encoded_size, quantize

VALUES = st.integers(1, 200).flatmap(
    lambda n: arrays.arrays(np.float32, n, elements=st.floats(-1, 1, width=32, allow_subnormal=False))
)


def restored(values):
    data, unit = quantize(values)
    assert len(data) == encoded_size(values.size)
    out = np.full(values.size, np.nan, np.float32)
    dequantize_into(data, unit, out)
    return out


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 34), (GROUP, 34), (GROUP + 1, 68), (1000, 16 * 34)])
def test_each_begun_group_takes_a_scale_and_half_a_byte_per_value(count, size):
    assert encoded_size(count) == size


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", [1.0, 3e-7, 1e20])
def test_multiples_of_a_step_are_restored_exactly(sign, step):
    codes = np.r_[np.arange(-8, 8), np.arange(-8, 8)].astype(np.float32)
    values = (sign * step * codes).astype(np.float32)
    np.testing.assert_allclose(restored(values), values, rtol=1e-6)


@given(VALUES)
def test_the_error_is_not_larger_than_with_the_largest_value_as_code_7(values):
    found = restored(values).astype(np.float64)
    top = float(np.abs(values).max())
    for start in range(0, values.size, GROUP):
        group = values[start : start + GROUP].astype(np.float64)
        step = np.abs(group).max() / 7
        plain = np.round(group / step) * step if step > 1e-30 else np.zeros_like(group)
        # A scale is rounded to float16, relative to the largest one of the array.
        tolerance = group.size * (0.02 * step + 1e-6 * top + 1e-30) ** 2
        assert ((group - found[start : start + GROUP]) ** 2).sum() <= 1.1 * ((group - plain) ** 2).sum() + tolerance


def test_zeros_need_no_scale():
    assert quantize(np.zeros(70, np.float32)) == (bytes(68), 0.0)
    assert not restored(np.zeros(70, np.float32)).any()


def test_a_value_that_float32_could_not_restore_is_refused():
    with pytest.raises(AdapterRefusedError, match=r"a value of 3\.?\d*e\+38 is too large for int4; use float32"):
        quantize(np.array([1.0, 3e38], np.float32))
