"""Detects that a model's weights have changed since keys and values were computed with them.

A change is detected by a weight's address, its version, and a few of its values, because PEFT merges through `.data`,
which does not increment the version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_PROBE = 64
"""Number of values compared per weight, taken from the start of its middle row; merging an adapter changes nearly
all."""


class WeightChanges:
    """Remembers the weights of a model's linear layers and compares them.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        self._states: list[tuple[int, int]] | None = None
        self._probes: list[Tensor] = []
        """Views of the compared values of each weight, at the address where the weight was last seen."""
        self._values: Tensor | None = None

    def found(self) -> bool:
        """Return whether a weight has changed since the last call; the first call has nothing to compare with."""
        if not self._layers:
            return False
        first = self._states is None
        # The probes are views of the weights only while the weights stay at the same addresses.
        if not first and self._current() == self._states and self._unchanged():
            return False
        with torch.inference_mode():
            self._remember()
        return not first

    def _unchanged(self) -> bool:
        return self._values is not None and torch.equal(self._probed(), self._values)

    def _current(self) -> list[tuple[int, int]]:
        """Return the address and version of each weight."""
        weights = (layer.weight for layer in self._layers)
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]  # noqa: SLF001

    def _remember(self) -> None:
        weights = [layer.weight.detach() for layer in self._layers]
        width = min(_PROBE, *(w.shape[1] for w in weights))
        self._probes = [w[w.shape[0] // 2, :width] for w in weights]
        self._states, self._values = self._current(), self._probed()

    def _probed(self) -> Tensor:
        return torch.stack(self._probes)
