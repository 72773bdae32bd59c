"""A token's attention row in the metadata of a reply."""

from __future__ import annotations

from typing import Any


class AttentionRow:
    """One token's attention row, (heads, keys) float32; wrapped so that tracers print one line instead of numbers."""

    __slots__ = ("weights",)

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def __repr__(self) -> str:
        heads, keys = self.weights.shape
        return f"<attention row: {heads} heads, {keys} keys>"
