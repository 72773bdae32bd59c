"""Where each factor of an adapter lies in one flat buffer.

    y = W x + s * B A x,   s = alpha / rank      (Hu et al. 2021, section 4.1)

    buffer:  | A of target 0 | A of target 1 | ... | B' of target 0 | B' of target 1 | ... |

`A` is (rank, in); `B` is (out, rank) and kept transposed, as `B'` (rank, out), so that stacking adapters along the rank
is stacking rows for both. All `A` come first: what a scale multiplies is then one contiguous half. Knows neither torch
nor files; models are described, not held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Target:
    """One linear layer that an adapter changes."""

    name: str
    """Its dotted name in the model."""
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layout:
    """The flat layout of an adapter.

    Args:
        targets: The layers, in the order in which the model holds them.
        rank: Rank of each layer's update.
    """

    targets: tuple[Target, ...]
    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigurationError(f"rank is {self.rank}; at least 1 is needed")
        if not self.targets:
            raise ConfigurationError("an adapter needs at least one target layer")

    @property
    def a_size(self) -> int:
        """Values of all `A`; the rest of the buffer holds all `B'`."""
        return self.rank * sum(t.inputs for t in self.targets)

    @property
    def size(self) -> int:
        """Values of an adapter."""
        return self.rank * sum(t.inputs + t.outputs for t in self.targets)

    @cached_property
    def a_offsets(self) -> tuple[int, ...]:
        """Where each target's `A` begins."""
        return tuple(_running(0, (self.rank * t.inputs for t in self.targets)))

    @cached_property
    def b_offsets(self) -> tuple[int, ...]:
        """Where each target's `B'` begins."""
        return tuple(_running(self.a_size, (self.rank * t.outputs for t in self.targets)))

    @cached_property
    def digest(self) -> str:
        """Equal exactly for equal layouts."""
        text = json.dumps([self.rank, [(t.name, t.inputs, t.outputs) for t in self.targets]])
        return hashlib.sha256(text.encode()).hexdigest()

    def factors(self, buffer: NDArray[np.float32]) -> Iterator[tuple[Target, NDArray[np.float32], NDArray[np.float32]]]:
        """Views of (target, `A` (rank, in), `B` (out, rank))."""
        for target, a, b in zip(self.targets, self.a_offsets, self.b_offsets, strict=True):
            yield (
                target,
                buffer[a : a + self.rank * target.inputs].reshape(self.rank, target.inputs),
                buffer[b : b + self.rank * target.outputs].reshape(self.rank, target.outputs).T,
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"rank": self.rank, "targets": [[t.name, t.inputs, t.outputs] for t in self.targets]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        """From plain data."""
        try:
            targets = tuple(Target(str(n), int(i), int(o)) for n, i, o in data["targets"])
            return cls(targets, int(data["rank"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"not the description of a layout: {error!r}") from error

    def __repr__(self) -> str:
        return f"Layout({len(self.targets)} layers, rank {self.rank}, {self.size:,} values)"


def _running(start: int, sizes: Iterator[int]) -> Iterator[int]:
    for size in sizes:
        yield start
        start += size
