"""One token of one sequence on a CPU: linear layers as matrix-vector products.

With a single row, `torch.nn.functional.linear` still goes through a matrix-matrix kernel, which in bfloat16 rearranges
the weight at every call. The matrix-vector kernel reads it once: the same sums, accumulated in float32, on some
processors in half of the time, on others in twice of it. So both are timed once, on weights that no cache holds. In
float32 both take the same time, and nothing is exchanged. Modelling code stays as it is; each layer's `forward` is
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


class VectorLinears:
    """A model's plain linear layers, for forwards over a single token.

    Args:
        model: The model; layers that something else has wrapped or subclassed are left alone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._forwards = [] if compiled else [(vars(m), _forward_of(m)) for m in plain]

    @contextlib.contextmanager
    def on(self, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
        """Use matrix-vector products in this context, where they pay."""
        if not pays(dtype, device):
            yield
            return
        with exchanged(self._forwards):
            yield


def pays(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this machine has a matrix-vector kernel that is faster and as exact.

    In float32 it gains nothing, in float16 PyTorch's is slower, and in bfloat16 it may be fast where the processor
    computes in it.
    """
    possible = device.type == "cpu" and dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return possible and is_faster(torch.get_num_threads())


@functools.cache
def is_faster(threads: int) -> bool:  # noqa: ARG001 - what was measured belongs to it
    """Whether matrix-vector products are clearly faster here, in bfloat16.

    Clearly, so that two processes of one machine do not come to different ends and round differently.
    """
    weights = torch.ones(24, 1536, 576, dtype=torch.bfloat16)  # 42 MB
    states = torch.ones(1, 576, dtype=torch.bfloat16)
    with torch.inference_mode():
        usual = _seconds(lambda weight: functional.linear(states, weight), weights)
        vector = _seconds(lambda weight: torch.mv(weight, states[0]), weights)
    return vector < 0.8 * usual


def _seconds(product: Callable[[Tensor], Tensor], weights: Tensor) -> float:
    """The best pass over all weights."""
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        for weight in weights:
            product(weight)
        best = min(best, time.perf_counter() - started)
    return best


def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear`, of a single row as a matrix-vector product."""
    if states.numel() != weight.shape[1] or states.dtype != weight.dtype:
        return functional.linear(states, weight, bias)
    vector = states.reshape(-1)
    out = torch.mv(weight, vector) if bias is None else torch.addmv(bias, weight, vector)
    return out.view(*states.shape[:-1], -1)


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: linear(states, layer.weight, layer.bias)
