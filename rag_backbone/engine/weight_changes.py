"""Noticing that a model's weights were changed since keys and values were computed with them.

A change is seen by a weight's address, its version, and, because PEFT merges through `.data`, which counts no versions,
by a few of its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_PROBE = 64
"""Leading values of a row in the middle by which a weight is recognised: a merged adapter changes nearly all."""


class WeightChanges:
    """Remembers the weights of a model's linear layers, and compares.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        self._states: list[tuple[int, int]] | None = None
        self._probes: list[Tensor] = []
        """Views of the values by which each weight is recognised, at the address where it was last seen."""
        self._values: Tensor | None = None

    def found(self) -> bool:
        """Return whether a weight differs from the last call's; the first call has nothing to compare with."""
        if not self._layers:
            return False
        first = self._states is None
        # The probes are views of the weights only as long as these are at the same addresses.
        if not first and self._current() == self._states and self._unchanged():
            return False
        with torch.inference_mode():
            self._remember()
        return not first

    def _unchanged(self) -> bool:
        return self._values is not None and torch.equal(self._probed(), self._values)

    def _current(self) -> list[tuple[int, int]]:
        """Address and version of each weight."""
        weights = (layer.weight for layer in self._layers)
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]  # noqa: SLF001

    def _remember(self) -> None:
        weights = [layer.weight.detach() for layer in self._layers]
        width = min(_PROBE, *(w.shape[1] for w in weights))
        self._probes = [w[w.shape[0] // 2, :width] for w in weights]
        self._states, self._values = self._current(), self._probed()

    def _probed(self) -> Tensor:
        return torch.stack(self._probes)
