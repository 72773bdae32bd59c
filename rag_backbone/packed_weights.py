"""Second copies of a model's weights, laid out as a CPU's matrix kernels read them.

oneDNN, which multiplies for PyTorch on many CPUs, computes in blocks: of a plain weight it gathers them at every call.
Packed once, as PyTorch's own compiler does with weights that it knows to be constant, the same sums (bit for bit where
both are oneDNN's) take 0.45 to 0.8 of the time in float32, from eight rows to four hundred, and 0.6 to 1 in bfloat16.
The price is the memory of the copies, so they have a limit.

A weight that has changed is packed anew before the next generation begins. Changed is seen by its address, its
version, and, because PEFT merges through `.data`, which counts no versions, a few of its values.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

_PROBE = 64
"""Leading values of a row in the middle by which a weight is recognised: a merged adapter changes nearly all."""

_copies: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
"""By a weight's `id` the weight and its packed copy, for as long as it lives. One for the process, so that whoever
multiplies by a layer's weight finds it."""


class PackedWeights:
    """Packed copies of the weights of some layers.

    Args:
        layers: Plain linear layers.
        most_bytes: Memory for all copies. Layers come in their order; one that no longer fits goes without.
    """

    def __init__(self, layers: Sequence[nn.Linear], most_bytes: int) -> None:
        self._layers = layers
        self._most = most_bytes
        self._states: list[tuple[int, int]] | None = None
        self._probes: list[Tensor] = []
        """Of each weight, at the address that it was seen at last, the values by which it is recognised."""
        self._values: Tensor | None = None

    def refresh(self) -> bool:
        """Pack what is not packed yet, or has changed; whether anything had changed. Nobody may use the model."""
        if not self._layers or self._most <= 0:
            return False
        first = self._states is None
        if not first and not self._changed():
            return False
        with torch.inference_mode():
            self._pack()
            self._probe()
        return not first

    def _changed(self) -> bool:
        # Only at the same addresses the probes are those of the weights.
        return self._current() != self._states or self._values is None or not torch.equal(self._probed(), self._values)

    def _current(self) -> list[tuple[int, int]]:
        """Of each layer's weight the address and the version."""
        weights = (layer.weight for layer in self._layers)
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]  # noqa: SLF001

    def _probe(self) -> None:
        """Note how the weights are."""
        weights = [layer.weight.detach() for layer in self._layers]
        width = min(_PROBE, *(w.shape[1] for w in weights))
        self._probes = [w[w.shape[0] // 2, :width] for w in weights]
        self._states, self._values = self._current(), self._probed()

    def _probed(self) -> Tensor:
        return torch.stack(self._probes)

    def _pack(self) -> None:
        used, left_out = 0, 0
        for layer in self._layers:
            weight = layer.weight
            _copies.pop(id(weight), None)
            if used + weight.nbytes > self._most:
                left_out += 1
                continue
            copy = packed(weight)
            if copy is None:
                return
            _copies[id(weight)] = weakref.ref(weight, _forgetting(id(weight))), copy
            used += weight.nbytes
        if left_out:
            logger.info("%d of %d weights do not fit into %d bytes", left_out, len(self._layers), self._most)


def packed(weight: Tensor) -> Tensor | None:
    """A packed copy of (out, in), if this PyTorch can make one."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)  # noqa: SLF001
        times_packed(weight.new_zeros(1, weight.shape[1]), copy, None)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        logger.debug("weights cannot be packed here", exc_info=error)
        return None
    return copy


def packed_of(weight: Tensor) -> Tensor | None:
    """The packed copy that somebody made of this weight."""
    found = _copies.get(id(weight))
    return found[1] if found is not None and found[0]() is weight else None


def _forgetting(key: int) -> Callable[[object], None]:
    def forget(gone: object) -> None:
        if key in _copies and _copies[key][0] is gone:  # else another weight has got its place
            del _copies[key]

    return forget


def times_packed(states: Tensor, copy: Tensor, bias: Tensor | None) -> Tensor:
    """(rows, in) by a packed copy of (out, in): (rows, out)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(states, copy, bias, "none", [], "")  # noqa: SLF001
    return out
