"""Linear layers on CPU in float32: for a few tokens, multiply the weight by the transposed states.

`torch.nn.functional.linear` multiplies the states by the transposed weight. For one to four tokens that reads the
weight more slowly than memory can deliver it; the same sums computed as weight times states take 0.3 to 0.8 of the
time. A single token is doubled, because a matrix-vector product is slower than a product with two columns. The rule
depends only on the number of tokens, so results are the same on every machine. Modelling code is not changed: each
layer's `forward` is replaced for the duration of one forward pass of the model.
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
"""Number of tokens above which `functional.linear` is as fast."""


class CPULinears:
    """Speeds up the plain linear layers of a model in forward passes over a few tokens.

    Args:
        model: The model; layers that are already wrapped or subclassed are left alone.
    """

    def __init__(self, model: PreTrainedModel | nn.Module) -> None:
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._forwards = [] if compiled else [(vars(m), _forward_of(m)) for m in plain]

    @contextlib.contextmanager
    def on(self, dtype: torch.dtype, device: torch.device, tokens: int) -> Iterator[None]:
        """Use the weight-first product in this context if it is faster for this number of tokens."""
        if device.type != "cpu" or not pays(dtype, tokens):
            yield
            return
        with patched_forwards(self._forwards):
            yield


def pays(dtype: torch.dtype, rows: int) -> bool:
    """Return whether the weight-first product is faster for this type and number of tokens."""
    return dtype == torch.float32 and 1 <= rows <= MOST_ROWS


def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `functional.linear`, with the weight first where that is faster."""
    rows = states.numel() // weight.shape[1]
    pays_here = states.dtype == weight.dtype and weight.device.type == "cpu" and pays(weight.dtype, rows)
    if not pays_here or torch.is_grad_enabled():
        return functional.linear(states, weight, bias)
    out = weight_first(states.reshape(rows, -1), weight)
    if bias is not None:
        out = out + bias
    return out.reshape(*states.shape[:-1], -1)


def weight_first(states: Tensor, weight: Tensor) -> Tensor:
    """Multiply (out, in) by the transpose of (rows, in) and return (rows, out)."""
    rows = len(states)
    if rows == 1:
        states = torch.cat((states, states))
    return torch.mm(weight, states.t())[:, :rows].t().contiguous()


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: linear(states, layer.weight, layer.bias)
