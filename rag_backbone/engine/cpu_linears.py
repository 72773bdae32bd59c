"""Linear layers on a CPU in float32: for a few tokens the product of the weight and the transposed states.

`torch.nn.functional.linear` multiplies the states by the transposed weight, and for one to four rows reads it more
slowly than memory delivers it; the same sums as weight times states take 0.3 to 0.8 of the time. A single row is
doubled, because a matrix-vector product is slower than one of two columns. The rule depends on nothing but the number
of rows, so that two machines compute alike. Modelling code stays as it is: each layer's `forward` is exchanged for the
duration of one forward of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from rag_backbone.engine.patched_forwards import patched_forwards

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

MOST_ROWS = 4
"""Rows beyond which `functional.linear` is as fast."""


class CPULinears:
    """The plain linear layers of a model, for forwards over a few tokens.

    Args:
        model: The model; layers that something else has wrapped or subclassed are left alone.
    """

    def __init__(self, model: PreTrainedModel | nn.Module) -> None:
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._forwards = [] if compiled else [(vars(m), _forward_of(m)) for m in plain]

    @contextlib.contextmanager
    def on(self, dtype: torch.dtype, device: torch.device, tokens: int) -> Iterator[None]:
        """Use the other product in this context, where it pays for this number of tokens."""
        if device.type != "cpu" or not pays(dtype, tokens):
            yield
            return
        with patched_forwards(self._forwards):
            yield


def pays(dtype: torch.dtype, rows: int) -> bool:
    """Return whether the weight-first product is the faster one for this type and number of rows."""
    return dtype == torch.float32 and 1 <= rows <= MOST_ROWS


def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `functional.linear`, weight first where that pays."""
    rows = states.numel() // weight.shape[1]
    pays_here = states.dtype == weight.dtype and weight.device.type == "cpu" and pays(weight.dtype, rows)
    if not pays_here or torch.is_grad_enabled():
        return functional.linear(states, weight, bias)
    out = weight_first(states.reshape(rows, -1), weight)
    if bias is not None:
        out = out + bias
    return out.reshape(*states.shape[:-1], -1)


def weight_first(states: Tensor, weight: Tensor) -> Tensor:
    """Multiply (out, in) by the transpose of (rows, in): (rows, out)."""
    rows = len(states)
    if rows == 1:
        states = torch.cat((states, states))
    return torch.mm(weight, states.t())[:, :rows].t().contiguous()


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: linear(states, layer.weight, layer.bias)
