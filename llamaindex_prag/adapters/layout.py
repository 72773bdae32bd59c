"""Memory layout of an adapter: the position of each factor in one flat buffer.

    y = W x + s * B A x,   s = alpha / rank      (Hu et al. 2021, section 4.1)

    buffer:  | A of target 0 | A of target 1 | ... | B' of target 0 | B' of target 1 | ... |

`A` is (rank, in). `B` is (out, rank) and stored transposed, as `B'` (rank, out), so that stacking adapters along the
rank means stacking rows for both. All `A` come first, so the part that a scale multiplies is contiguous. Knows neither
torch nor files; models are described, not held.
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
    """Dotted name of the layer in the model."""
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layout:
    """The flat layout of an adapter.

    Args:
        targets: The adapted layers, in model order.
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
        """Number of values of all `A`; the rest of the buffer holds all `B'`."""
        return self.rank * sum(t.inputs for t in self.targets)

    @property
    def size(self) -> int:
        """Number of values of an adapter."""
        return self.rank * sum(t.inputs + t.outputs for t in self.targets)

    @cached_property
    def a_offsets(self) -> tuple[int, ...]:
        """Offset of each target's `A`."""
        return tuple(_running(0, (self.rank * t.inputs for t in self.targets)))

    @cached_property
    def b_offsets(self) -> tuple[int, ...]:
        """Offset of each target's `B'`."""
        return tuple(_running(self.a_size, (self.rank * t.outputs for t in self.targets)))

    @cached_property
    def digest(self) -> str:
        """A hash that is equal exactly for equal layouts."""
        text = json.dumps([self.rank, [(t.name, t.inputs, t.outputs) for t in self.targets]])
        return hashlib.sha256(text.encode()).hexdigest()

    def factors(self, buffer: NDArray[np.float32]) -> Iterator[tuple[Target, NDArray[np.float32], NDArray[np.float32]]]:
        """Yield (target, `A` (rank, in), `B` (out, rank)) for each target, as views of the buffer."""
        for target, a, b in zip(self.targets, self.a_offsets, self.b_offsets, strict=True):
            yield (
                target,
                buffer[a : a + self.rank * target.inputs].reshape(self.rank, target.inputs),
                buffer[b : b + self.rank * target.outputs].reshape(self.rank, target.outputs).T,
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as JSON-serialisable data."""
        return {"rank": self.rank, "targets": [[t.name, t.inputs, t.outputs] for t in self.targets]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Layout:
        """Build a layout from what `to_dict` returned.

        Raises:
            ConfigurationError: If the data do not describe a layout.
        """
        try:
            targets = tuple(Target(str(n), int(i), int(o)) for n, i, o in data["targets"])
            return cls(targets, int(data["rank"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"the data do not describe a layout: {error!r}") from error

    def __repr__(self) -> str:
        return f"Layout({len(self.targets)} layers, rank {self.rank}, {self.size:,} values)"


def _running(start: int, sizes: Iterator[int]) -> Iterator[int]:
    for size in sizes:
        yield start
        start += size
