"""What is kept of a document: a few vectors, a byte a value.

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
    """A document's vectors."""

    codes: NDArray[np.int8]
    """(m, d)."""
    scales: NDArray[np.float32]
    """(m,)."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Self:
        """Round (m, d) vectors.

        Raises:
            AdapterDamagedError: If a value is not finite.
        """
        if not np.isfinite(vectors).all():
            raise AdapterDamagedError("a document's representation has values that are not finite")
        scales = (np.abs(vectors).max(1) / _LARGEST).astype(np.float32)
        # Below the smallest normal number a scale is too coarse to divide by; such a vector is 0.
        scales[scales < np.finfo(np.float32).tiny] = 0
        divisors = np.where(scales > 0, scales, np.inf)[:, None]
        return cls(np.rint(vectors / divisors).astype(np.int8), scales)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(m, d) float32."""
        return self.codes.astype(np.float32) * self.scales[:, None]

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.codes.nbytes + self.scales.nbytes

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        parts = {"codes": self.codes.tobytes(), "scales": self.scales.astype("<f4").tobytes()}
        return {"shape": list(self.codes.shape)} | {k: base64.b64encode(v).decode() for k, v in parts.items()}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """From plain data.

        Raises:
            AdapterDamagedError: If it is none of ours.
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
