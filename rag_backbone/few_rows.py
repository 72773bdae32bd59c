"""Few tokens at a time on a CPU: linear layers by whichever product is the fastest.

`torch.nn.functional.linear` multiplies the states by the transposed weight. For few rows that reads the weight far more
slowly than memory gives it:

- In float32 the product of the weight and the transposed states is the same sums, and was measured in a third to three
  quarters of the time for two to eight rows. A single row is made two equal ones: half of the time of a matrix-vector
  product.
- In bfloat16 a single row goes through a matrix-matrix kernel, which rearranges the weight at every call. The
  matrix-vector kernel reads it once, accumulating in float32: on some processors in half of the time, on others in
  twice of it.

So both ways are timed once, on weights that no cache holds. Modelling code stays as it is; each layer's `forward` is
exchanged for the one forward, and falls back to the usual product for any other input.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from rag_backbone.forwards import exchanged

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Product = Callable[[Tensor, Tensor], Tensor]
    """Of (rows, in) and (out, in): (rows, out)."""

MOST = 8
"""Rows beyond which the usual product reads the weights as fast."""


class FewRowLinears:
    """A model's plain linear layers, for forwards over few tokens.

    Args:
        model: The model; layers that something else has wrapped or subclassed are left alone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._forwards = [] if compiled else [(vars(m), _forward_of(m)) for m in plain]

    @contextlib.contextmanager
    def on(self, dtype: torch.dtype, device: torch.device, tokens: int) -> Iterator[None]:
        """Use other products in this context, where they pay for so many tokens."""
        if product_for(dtype, device, tokens) is None:
            yield
            return
        with exchanged(self._forwards):
            yield


def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear`, of few rows by whichever product is the fastest here."""
    rows = states.numel() // weight.shape[1]
    product = product_for(weight.dtype, weight.device, rows) if states.dtype == weight.dtype else None
    if product is None:
        return functional.linear(states, weight, bias)
    out = product(states.reshape(rows, -1), weight)
    if bias is not None:
        out = out + bias
    return out.reshape(*states.shape[:-1], -1)


def product_for(dtype: torch.dtype, device: torch.device, rows: int) -> Product | None:
    """What is clearly faster than the usual product for so many rows; None if nothing is.

    In float16 PyTorch's other kernels are slower, and in bfloat16 one may be fast where the processor computes in it.
    """
    if device.type != "cpu" or not 0 < rows <= MOST:
        return None
    if dtype == torch.float32:
        product: Product = weight_first
    elif dtype == torch.bfloat16 and rows == 1 and torch.cpu._is_avx512_bf16_supported():  # noqa: SLF001
        product = vector
    else:
        return None
    # What was measured for two, four and eight rows goes for the numbers in between.
    return product if is_faster(product, dtype, 1 << (rows - 1).bit_length(), torch.get_num_threads()) else None


def weight_first(states: Tensor, weight: Tensor) -> Tensor:
    """As the product of the weight and the transposed states."""
    rows = len(states)
    if rows == 1:
        states = torch.cat((states, states))
    return torch.mm(weight, states.t())[:, :rows].t().contiguous()


def vector(states: Tensor, weight: Tensor) -> Tensor:
    """Of a single row: as a matrix-vector product."""
    return torch.mv(weight, states[0])[None]


@functools.cache
def is_faster(product: Product, dtype: torch.dtype, rows: int, threads: int) -> bool:  # noqa: ARG001 - measured for it
    """Whether a product is clearly faster here than the usual one.

    Clearly, so that two processes of one machine do not come to different ends and round differently.
    """
    weights = torch.ones(24, 1536, 576, dtype=dtype)  # 42 MB in bfloat16
    states = torch.ones(rows, 576, dtype=dtype)
    with torch.inference_mode():
        usual = _seconds(lambda weight: functional.linear(states, weight), weights)
        other = _seconds(lambda weight: product(states, weight), weights)
    return other < 0.8 * usual


def _seconds(multiplied: Callable[[Tensor], Tensor], weights: Tensor) -> float:
    """The best pass over all weights."""
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        for weight in weights:
            multiplied(weight)
        best = min(best, time.perf_counter() - started)
    return best


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: linear(states, layer.weight, layer.bias)
