"""A document's stored representation: a few vectors, quantized to one byte per value.

vector = scale * code,    code in -127 .. 127,    scale = largest absolute value / 127
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.errors import AdapterDamagedError

_LARGEST = 127


@dataclass(frozen=True, slots=True, eq=False)
class Representation:
    """A document's quantized vectors."""

    codes: NDArray[np.int8]
    """(m, d) quantized values."""
    scales: NDArray[np.float32]
    """(m,) scale of each vector."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Self:
        """Quantize (m, d) vectors.

        Raises:
            AdapterDamagedError: If a value is not finite.
        """
        if not np.isfinite(vectors).all():
            raise AdapterDamagedError("a document's representation has values that are not finite")
        scales = (np.abs(vectors).max(1) / _LARGEST).astype(np.float32)
        # A subnormal scale is too coarse to divide by; such a vector becomes 0.
        scales[scales < np.finfo(np.float32).tiny] = 0
        divisors = np.where(scales > 0, scales, np.inf)[:, None]
        return cls(np.rint(vectors / divisors).astype(np.int8), scales)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(m, d) float32 dequantized vectors."""
        return self.codes.astype(np.float32) * self.scales[:, None]

    @property
    def nbytes(self) -> int:
        """Stored size in bytes."""
        return self.codes.nbytes + self.scales.nbytes

    def to_json(self) -> dict[str, Any]:
        """Return the representation as plain data, ready for JSON."""
        parts = {"codes": self.codes.tobytes(), "scales": self.scales.astype("<f4").tobytes()}
        return {"shape": list(self.codes.shape)} | {k: base64.b64encode(v).decode() for k, v in parts.items()}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Build a representation from the data that `to_json` returns.

        Raises:
            AdapterDamagedError: If the data is not a valid representation.
        """
        try:
            m, d = (int(n) for n in data["shape"])
            codes = np.frombuffer(base64.b64decode(data["codes"], validate=True), np.int8).reshape(m, d)
            scales = np.frombuffer(base64.b64decode(data["scales"], validate=True), "<f4").astype(np.float32)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise AdapterDamagedError(f"a document's representation cannot be read: {error!r}") from error
        if scales.shape != (m,) or not np.isfinite(scales).all():
            raise AdapterDamagedError(f"a document's representation of {m} vectors has scales {scales[:4]}")
        return cls(codes, scales)

    def __repr__(self) -> str:
        return f"Representation({self.codes.shape[0]} vectors of {self.codes.shape[1]}, {self.nbytes} bytes)"
