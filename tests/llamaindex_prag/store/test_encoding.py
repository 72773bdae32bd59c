"""Values encoded as bytes and decoded again."""

import json
import struct

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError
from llamaindex_prag.store.encoding import ENCODINGS, decode_into, encode, read_header
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.store.made import LAYOUT, made_adapter, made_layout

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))


@st.composite
def adapters(draw):
    inputs, outputs, rank = draw(SIZES)
    layout = Layout((Target("one", inputs, outputs), Target("two", outputs, inputs + 3)), rank)
    size = draw(st.sampled_from([1.0, 1e-6, 1e4]))
    values = draw(arrays.arrays(np.float32, layout.size, elements=st.floats(-1, 1, width=32)))
    return Adapter(layout, values * np.float32(size), draw(st.sampled_from([0.5, 16.0, 2 / 3])))


def decoded(data, size):
    out = np.full(size, np.nan, np.float32)
    return out, decode_into(data, out)


@given(adapters())
def test_float32_is_exact(adapter):
    values, header = decoded(encode(adapter, "float32"), adapter.layout.size)
    np.testing.assert_array_equal(values, adapter.buffer)
    assert (header.layout, header.scale) == (adapter.layout.digest, adapter.scale)


@given(adapters())
def test_bfloat16_rounds_to_the_nearest_value(adapter):
    values, _ = decoded(encode(adapter, "bfloat16"), adapter.layout.size)
    np.testing.assert_allclose(values, adapter.buffer, rtol=2**-8, atol=1e-38)
    assert (values.view(np.uint32) & 0xFFFF == 0).all()
    again, _ = decoded(encode(Adapter(adapter.layout, values, 1.0), "bfloat16"), values.size)
    np.testing.assert_array_equal(again, values)


def test_bfloat16_rounds_as_torch_does():
    import torch

    adapter = made_adapter(layout=made_layout(layers=1))
    values, _ = decoded(encode(adapter, "bfloat16"), adapter.layout.size)
    np.testing.assert_array_equal(values, torch.from_numpy(adapter.buffer).bfloat16().float().numpy())


@given(adapters())
def test_int4_has_a_root_mean_square_error_of_at_most_half_a_step(adapter):
    values, _ = decoded(encode(adapter, "int4"), adapter.layout.size)
    cut = adapter.layout.a_size
    for half, found in ((adapter.buffer[:cut], values[:cut]), (adapter.buffer[cut:], values[cut:])):
        top = np.abs(half).max()
        for start in range(0, half.size, 64):
            group = slice(start, start + 64)
            step = np.abs(half[group]).max() / 7
            error = np.sqrt(np.mean((half[group].astype(np.float64) - found[group]) ** 2))
            # Scales far below the largest one underflow (float16), and so do values below 1e-30.
            assert error <= 0.51 * step + 1e-6 * top + 1e-30


def test_int4_has_an_error_below_a_tenth_on_values_like_trained_ones():
    adapter = made_adapter(layout=made_layout())
    adapter.buffer[adapter.layout.a_size :] *= 1e-5
    values, _ = decoded(encode(adapter, "int4"), adapter.layout.size)
    for half in (slice(0, adapter.layout.a_size), slice(adapter.layout.a_size, None)):
        error = np.linalg.norm(values[half] - adapter.buffer[half]) / np.linalg.norm(adapter.buffer[half])
        assert error < 0.1


def test_int4_scale_of_one_half_does_not_affect_the_other():
    layout = Layout((Target("odd", 7, 9),), 3)  # 21 and 27 values: neither half fills a group
    adapter = Adapter(layout, np.r_[np.full(21, 1e-4), np.full(27, 100.0)].astype(np.float32), 1.0)
    values, _ = decoded(encode(adapter, "int4"), layout.size)
    np.testing.assert_allclose(values, adapter.buffer, rtol=2e-3)


@pytest.mark.parametrize(("encoding", "most"), [("float32", 1.003), ("bfloat16", 0.503), ("int4", 0.135)])
@pytest.mark.parametrize("layers", [6, 24])
def test_encoded_size_is_bounded(encoding, most, layers):
    adapter = made_adapter(layout=made_layout(layers=layers))
    assert adapter.layout.size >= 100_000
    assert len(encode(adapter, encoding)) <= most * adapter.buffer.nbytes


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_zeros_stay_zeros(encoding):
    values, _ = decoded(encode(Adapter(LAYOUT, np.zeros(LAYOUT.size, np.float32), 1.0), encoding), LAYOUT.size)
    assert not values.any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_slice_of_a_larger_buffer_can_be_filled(encoding):
    adapter = made_adapter()
    large = np.full(LAYOUT.size + 9, 7.0, np.float32)
    decode_into(memoryview(encode(adapter, encoding)), large[3:-6])
    np.testing.assert_allclose(large[3:-6], adapter.buffer, atol=0.01)
    assert (large[:3] == 7).all()
    assert (large[-6:] == 7).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_changed_bit_is_detected(encoding):
    data = encode(made_adapter(), encoding)
    out = np.empty(LAYOUT.size, np.float32)
    for position in range(0, len(data), 7):
        broken = bytearray(data)
        broken[position] ^= 4
        with pytest.raises(AdapterDamagedError):
            decode_into(bytes(broken), out)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_missing_or_additional_byte_is_detected(encoding):
    data = encode(made_adapter(), encoding)
    out = np.empty(LAYOUT.size, np.float32)
    for broken in (b"", data[:3], data[:40], data[:-1], data + b"\0"):
        with pytest.raises(AdapterDamagedError):
            decode_into(broken, out)


def resealed(data, **changes):
    """Return the bytes with other header fields and a matching checksum."""
    _, version, text_size, _, _ = struct.unpack_from("<4sHHQQ", data)
    text = json.dumps({**json.loads(data[24 : 24 + text_size]), **changes}).encode()
    payload = data[24 + text_size :]
    prefix = struct.pack("<4sHHQQ", b"DPAV", version, len(text), len(payload), xxhash.xxh3_64_intdigest(text + payload))
    return prefix + text + payload


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "int3"},
        {"size": LAYOUT.size + 1},
        {"size": -1},
        {"a_size": LAYOUT.size + 1},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"units": [1.0]},
        {"size": "many"},
    ],
)
def test_inconsistent_headers_are_refused(changes):
    data = resealed(encode(made_adapter(), "int4"), **changes)
    with pytest.raises(AdapterDamagedError):
        decode_into(data, np.empty(LAYOUT.size, np.float32))


def test_values_that_are_not_finite_are_refused_despite_a_matching_checksum():
    data = encode(made_adapter(), "float32")
    broken = resealed(data[:-4] + np.float32(np.inf).tobytes())
    with pytest.raises(AdapterDamagedError, match="1 values that are not finite"):
        decode_into(broken, np.empty(LAYOUT.size, np.float32))


def test_huge_but_finite_values_pass_in_float32():
    adapter = Adapter(LAYOUT, np.full(LAYOUT.size, 3e38, np.float32), 1.0)
    values, _ = decoded(encode(adapter, "float32"), LAYOUT.size)
    np.testing.assert_array_equal(values, adapter.buffer)


@pytest.mark.parametrize("encoding", ["bfloat16", "int4"])
def test_values_too_large_for_the_encoding_are_refused(encoding):
    adapter = Adapter(LAYOUT, np.full(LAYOUT.size, 3.4e38, np.float32), 1.0)
    with pytest.raises(AdapterRefusedError, match="too large"):
        encode(adapter, encoding)


def test_values_that_are_not_finite_are_not_encoded():
    adapter = made_adapter()
    adapter.buffer[5] = np.nan
    with pytest.raises(AdapterError, match="not finite"):
        encode(adapter, "float32")


@pytest.mark.parametrize(
    "out", [np.empty(3, np.float32), np.empty(LAYOUT.size), np.empty(2 * LAYOUT.size, np.float32)[::2]]
)
def test_a_buffer_that_does_not_fit_is_refused(out):
    with pytest.raises(AdapterRefusedError, match="contiguous float32"):
        decode_into(encode(made_adapter(), "float32"), out)


def test_another_magic_or_version_is_named():
    data = bytearray(encode(made_adapter(), "float32"))
    data[4] = 9
    with pytest.raises(AdapterDamagedError, match="version 9; this release reads 1"):
        read_header(bytes(data))
    with pytest.raises(AdapterDamagedError, match="begin with b'PK"):
        read_header(b"PK\3\4" + bytes(data[4:]))


def test_an_unknown_encoding_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="int8.*known: float32, bfloat16, int4"):
        encode(made_adapter(), "int8")
