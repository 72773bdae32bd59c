"""An adapter in memory, and the key that identifies what it was trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_backbone.errors import AdapterError
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.layout import Layout

LARGEST_VALUE = 1e4
"""Weights of a trained adapter are below 1; one above this value has diverged."""


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """Identifies an adapter by its base model, recipe and passage.

    The passage's title, which the questions about it use, is not part of the key: within a store, the first title
    counts.
    """

    model: str
    """The base model's fingerprint, 64 hexadecimal digits."""
    recipe: str
    """`Recipe.key`, 64 hexadecimal digits."""
    text: str
    """`text_hash` of the passage, 64 hexadecimal digits."""

    @property
    def digest(self) -> str:
        """A single hash of model, recipe and text."""
        return hashlib.sha256(f"{self.model}/{self.recipe}/{self.text}".encode()).hexdigest()


def text_hash(text: str) -> str:
    """Return the SHA-256 of a passage, after stripping surrounding whitespace and repairing lone surrogates."""
    return hashlib.sha256(clean_text(text, "a passage").strip().encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Adapter:
    """An adapter's values.

    Args:
        layout: Where each factor lies in the buffer.
        buffer: (layout.size,) float32, C-contiguous.
        scale: The factor of `B A`.
    """

    layout: Layout
    buffer: NDArray[np.float32]
    scale: float

    def check(self) -> None:
        """Check that training could have produced these values.

        Raises:
            AdapterError: If the buffer has another size or type or holds values that are not finite, or the scale is
                not a finite number above 0.
        """
        import numpy as np

        if self.buffer.shape != (self.layout.size,) or self.buffer.dtype != np.float32:
            raise AdapterError(
                f"an adapter of {self.layout!r} needs {self.layout.size} float32 values; "
                f"the buffer has shape {self.buffer.shape} of {self.buffer.dtype}"
            )
        if not np.isfinite(self.buffer).all():
            raise AdapterError(f"the adapter holds {int((~np.isfinite(self.buffer)).sum())} values that are not finite")
        if not self.scale > 0 or not np.isfinite(self.scale):
            raise AdapterError(f"the adapter's scale is {self.scale}; it must be a finite number above 0")

    def __repr__(self) -> str:
        return f"Adapter({self.layout!r}, scale {self.scale:g})"
