"""Four bits per value, with one float16 scale for every 64 values.

    value = unit * scale[group] * code,   code in -8 .. 7

A group's scale is the one of a few candidates with the smallest squared error, after refitting each to its own codes by
least squares. Scales may be negative, so that the side with the largest value gets the eighth code. They are stored
relative to the largest one (`unit`), because the scales of a tiny `B` would otherwise underflow float16.

    | scales, float16 | codes, two per byte, the earlier one in the low half |

Every array is quantised separately, so groups never straddle two arrays; an incomplete last group is padded.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.errors import AdapterRefusedError

GROUP = 64

# The largest value's code: below 8 in magnitude it is represented exactly, above it is clipped to the others' benefit.
_CANDIDATES = (-8.0, -7.3, 7.0, -8.7, -9.5)
_GROUPS_AT_ONCE = 4096
_VANISHING = 1e-30  # treated as zero; the inverse of anything above fits into float32


def encoded_size(count: int) -> int:
    """Return the number of bytes for `count` values."""
    return -(-count // GROUP) * (2 + GROUP // 2)


def quantize(values: NDArray[np.float32]) -> tuple[bytes, float]:
    """Return the encoded bytes of an array, and its unit.

    Args:
        values: (n,) float32, finite.

    Raises:
        AdapterRefusedError: If a value is too large to be restored in float32.
    """
    groups = -(-values.size // GROUP)
    padded = np.zeros((groups, GROUP), np.float32)
    padded.reshape(-1)[: values.size] = values
    # Scale to at most 1 first, so that squares neither overflow nor underflow.
    largest = float(np.abs(values).max(initial=0.0))
    if largest > np.finfo(np.float32).max / 16:
        raise AdapterRefusedError(f"a value of {largest:g} is too large for int4; use float32")
    if largest < _VANISHING:
        return bytes(encoded_size(values.size)), 0.0
    padded *= np.float32(1.0 / largest)
    scales = np.concatenate([_best_scales(padded[i : i + _GROUPS_AT_ONCE]) for i in range(0, groups, _GROUPS_AT_ONCE)])
    top = float(np.abs(scales).max())
    halves = (scales / np.float32(top)).astype("<f2")
    codes = (_codes(padded, halves.astype(np.float32) * np.float32(top)) + np.float32(8.0)).astype(np.uint8)
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return halves.tobytes() + packed.tobytes(), top * largest


def dequantize_into(data: bytes | memoryview, unit: float, out: NDArray[np.float32]) -> None:
    """Decode the bytes of `quantize` into `out`, (n,) float32 and contiguous."""
    groups = -(-out.size // GROUP)
    scales = np.frombuffer(data, "<f2", groups).astype(np.float32)
    scales *= np.float32(unit)
    codes = np.frombuffer(data, "<u2", groups * GROUP // 4, offset=2 * groups)
    whole = out.size // GROUP
    _fill(codes[: whole * GROUP // 4], scales[:whole], out[: whole * GROUP])
    if whole < groups:
        rest = np.empty(GROUP, np.float32)
        _fill(codes[whole * GROUP // 4 :], scales[whole:], rest)
        out[whole * GROUP :] = rest[: out.size - whole * GROUP]


def _best_scales(groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale of each group with the smallest squared error."""
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)[:, 0]
    best = np.zeros(len(groups), np.float32)
    least = np.full(len(groups), np.inf, np.float32)
    for candidate in _CANDIDATES:
        codes = _codes(groups, extreme / np.float32(candidate))
        weight = np.einsum("ij,ij->i", codes, codes)
        fit = np.einsum("ij,ij->i", codes, groups)
        # With x.c / c.c as scale, the error is x.x - (x.c)^2 / c.c; the first term is the same for all candidates.
        weight[weight == 0] = 1.0
        scale = fit / weight
        error = -scale * fit
        better = error < least
        best[better], least[better] = scale[better], error[better]
    return best


def _codes(groups: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(np.abs(scales) > _VANISHING, np.float32(1.0) / scales, np.float32(0.0)).astype(np.float32)
    codes = groups * inverse[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, -8, 7, out=codes)


def _fill(codes: NDArray[np.uint16], scales: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    # Moves four float32 as one complex128; mode="clip" lets NumPy write straight into `out`, but clips nothing here.
    np.take(_table(), codes, out=out.view(np.complex128), mode="clip")
    rows = out.reshape(-1, GROUP)
    np.multiply(rows, scales[:, None], out=rows)


@cache
def _table() -> NDArray[np.complex128]:
    """Return (65536,): the four codes of every two bytes, as float32; one megabyte."""
    pairs = np.arange(65536, dtype=np.uint32).astype("<u2").view(np.uint8).reshape(-1, 2)
    codes = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, 4).astype(np.float32) - 8.0
    table: NDArray[np.complex128] = np.ascontiguousarray(codes).view(np.complex128).reshape(-1)
    return table
