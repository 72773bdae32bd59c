"""Encode an adapter's values as bytes, and decode them into a caller's buffer.

    | magic, version, header size, payload size, checksum | header (JSON, padded) | payload |
      24 bytes; the checksum (XXH3-64) covers header and payload

The payload is the flat buffer of `Layout` in one of three encodings, all little-endian:

    float32    4 bytes per value, exact
    bfloat16   2 bytes per value, rounded to nearest, ties to even
    int4       0.53 bytes per value, see `int4`

Everything is checked when decoding: magic, version, sizes, checksum, finite values. Knows neither keys nor files.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError
from llamaindex_prag.store import int4
from rag_backbone.errors import ConfigurationError

Encoding = Literal["float32", "bfloat16", "int4"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
VERSION = 1

_MAGIC = b"DPAV"
_PREFIX = struct.Struct("<4sHHQQ")
_ALIGN = 16


@dataclass(frozen=True, slots=True)
class Header:
    """Description of an encoded adapter."""

    layout: str
    """`Layout.digest`."""
    scale: float
    encoding: Encoding
    size: int
    """Number of values."""
    a_size: int
    """Number of values before the first `B'`."""
    units: tuple[float, float]
    """int4 only: the units of the groups' scales, for the `A` half and the `B'` half."""


def checked_encoding(name: str) -> Encoding:
    """Check the name of an encoding and return it.

    Raises:
        ConfigurationError: If there is no such encoding.
    """
    if name not in ENCODINGS:
        raise ConfigurationError(f"encoding is {name!r}; known: {', '.join(ENCODINGS)}")
    return name


def encode(adapter: Adapter, encoding: Encoding) -> bytes:
    """Encode an adapter as bytes.

    Raises:
        AdapterError: If the adapter is not valid (`Adapter.check`).
        AdapterRefusedError: If a value is too large for the encoding.
    """
    adapter.check()
    buffer, a_size = adapter.buffer, adapter.layout.a_size
    units = (0.0, 0.0)
    if checked_encoding(encoding) == "float32":
        payload = buffer.astype("<f4", copy=False).tobytes()
    elif encoding == "bfloat16":
        payload = _to_bfloat16(buffer).tobytes()
    else:
        halves = [int4.quantize(half) for half in (buffer[:a_size], buffer[a_size:])]
        payload = b"".join(data for data, _ in halves)
        units = (halves[0][1], halves[1][1])
    fields = {
        "layout": adapter.layout.digest,
        "scale": float(adapter.scale),
        "encoding": encoding,
        "size": buffer.size,
        "a_size": a_size,
        "units": units,
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % _ALIGN)
    checksum = _checksum(text, payload)
    return b"".join((_PREFIX.pack(_MAGIC, VERSION, len(text), len(payload), checksum), text, payload))


def read_header(data: bytes | memoryview) -> Header:
    """Read the header of an encoded adapter, without its payload.

    Raises:
        AdapterDamagedError: If magic, version, sizes or fields are wrong.
    """
    return _parsed(data)[0]


def decode_into(data: bytes | memoryview, out: NDArray[np.float32]) -> Header:
    """Decode an adapter's values into `out`.

    Args:
        data: What `encode` returned.
        out: (size,) float32, C-contiguous.

    Returns:
        The header.

    Raises:
        AdapterDamagedError: If the bytes differ from what was written.
        AdapterRefusedError: If `out` has another shape, type or memory order.
    """
    header, text, payload, checksum = _parsed(data)
    if out.shape != (header.size,) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise AdapterRefusedError(
            f"the adapter has {header.size} values; the buffer to read it into has shape {out.shape} of {out.dtype}, "
            f"{'contiguous' if out.flags.c_contiguous else 'not contiguous'}. It must be one contiguous float32 array."
        )
    if (found := _checksum(text, payload)) != checksum:
        raise AdapterDamagedError(
            f"the adapter's bytes have checksum {found:016x}, not {checksum:016x} as written; remove and retrain it"
        )
    if header.encoding == "float32":
        out[:] = np.frombuffer(payload, "<f4")
    elif header.encoding == "bfloat16":
        bits = out.view(np.uint32)
        bits[:] = np.frombuffer(payload, "<u2")
        np.left_shift(bits, 16, out=bits)
    else:
        cut = int4.encoded_size(header.a_size)
        int4.dequantize_into(payload[:cut], header.units[0], out[: header.a_size])
        int4.dequantize_into(payload[cut:], header.units[1], out[header.a_size :])
    # One BLAS call: a NaN or an infinity anywhere makes the sum of squares non-finite too.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(out.dot(out)) or np.isfinite(out).all()
    if not finite:
        raise AdapterDamagedError(f"the stored adapter has {int((~np.isfinite(out)).sum())} values that are not finite")
    return header


def _parsed(data: bytes | memoryview) -> tuple[Header, memoryview, memoryview, int]:
    view = memoryview(data)
    if len(view) < _PREFIX.size:
        raise AdapterDamagedError(f"{len(view)} bytes are not an adapter: the prefix alone has {_PREFIX.size}")
    magic, version, text_size, payload_size, checksum = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise AdapterDamagedError(f"the bytes begin with {magic!r}; an adapter begins with {_MAGIC!r}")
    if version != VERSION:
        raise AdapterDamagedError(f"the adapter is encoded in version {version}; this release reads {VERSION}")
    if len(view) != _PREFIX.size + text_size + payload_size:
        raise AdapterDamagedError(
            f"the adapter has {len(view)} bytes; by its prefix it should have "
            f"{_PREFIX.size + text_size + payload_size}: it was truncated, or something follows it"
        )
    text = view[_PREFIX.size : _PREFIX.size + text_size]
    payload = view[_PREFIX.size + text_size :]
    header = _header(bytes(text))
    if len(payload) != (expected := _payload_size(header)):
        raise AdapterDamagedError(
            f"{header.size} values in {header.encoding} take {expected} bytes; there are {len(payload)}"
        )
    return header, text, payload, checksum


def _header(text: bytes) -> Header:
    try:
        fields: dict[str, Any] = json.loads(text)
        units = (float(fields["units"][0]), float(fields["units"][1]))
        header = Header(
            layout=str(fields["layout"]),
            scale=float(fields["scale"]),
            encoding=fields["encoding"],
            size=int(fields["size"]),
            a_size=int(fields["a_size"]),
            units=units,
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise AdapterDamagedError(f"the adapter's header cannot be read: {error!r}") from error
    if header.encoding not in ENCODINGS or not 0 <= header.a_size <= header.size:
        raise AdapterDamagedError(f"the adapter's header is inconsistent: {header}")
    if not (np.isfinite(header.scale) and header.scale > 0 and np.isfinite(header.units).all()):
        raise AdapterDamagedError(f"the adapter's scale is {header.scale}, its units {header.units}")
    return header


def _payload_size(header: Header) -> int:
    if header.encoding == "int4":
        return int4.encoded_size(header.a_size) + int4.encoded_size(header.size - header.a_size)
    return header.size * (4 if header.encoding == "float32" else 2)


def _checksum(text: bytes | memoryview, payload: bytes | memoryview) -> int:
    state = xxhash.xxh3_64(text)
    state.update(payload)
    return state.intdigest()


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    if ((rounded & 0x7F80) == 0x7F80).any():
        raise AdapterRefusedError(f"a value of {float(np.abs(values).max()):g} is too large for bfloat16; use float32")
    return rounded.astype("<u2")
