"""Linear layers on a CPU: by whichever product is the fastest for so many tokens.

`torch.nn.functional.linear` multiplies the states by the transposed weight, and reads it more slowly than memory gives
it. There are others for the same sums:

- Of *packed* weights (see `packed_weights`), for any number of rows.
- In float32 the product of the weight and the transposed states: for one to four rows the fastest of all. A single row
  is made two equal ones: half of the time of a matrix-vector product.
- In bfloat16 a single row as a matrix-vector product, which accumulates in float32: on some processors in half of the
  time, on others in twice of it.

So all of them are timed once, on weights that no cache holds. Modelling code stays as it is; each layer's `forward` is
exchanged for the one forward, and falls back to the usual product for any other input.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from rag_backbone.forwards import exchanged
from rag_backbone.limits import PACKED_BYTES
from rag_backbone.packed_weights import PackedWeights, packed, packed_of, times_packed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Product = Callable[[Tensor, Tensor], Tensor]
    """Of (rows, in) and (out, in): (rows, out)."""

Kind = Literal["usual", "packed", "weight_first", "vector"]

MOST_FEW = 8
"""Rows beyond which only packed weights beat the usual product."""
_MANY = (32, 256)
"""Numbers of rows whose timing goes for all larger ones up to the next."""
_CLEARLY = 0.8
_PACKED_CLEARLY = 0.98
_PASSES = 6


class CPULinears:
    """A model's plain linear layers, for forwards over few tokens or many.

    Args:
        model: The model; layers that something else has wrapped or subclassed are left alone.
        packed_bytes: Memory for packed copies of their weights.
    """

    def __init__(self, model: PreTrainedModel | nn.Module, packed_bytes: int = PACKED_BYTES) -> None:
        compiled = getattr(model, "_compiled_call_impl", None) is not None
        plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._layers = [] if compiled else plain
        self._forwards = [(vars(m), _forward_of(m)) for m in self._layers]
        self._packed = PackedWeights(self._layers, packed_bytes)

    def refresh(self) -> bool:
        """Make sure that packed copies are those of the weights; whether these had changed.

        Before whatever does not go on from what was computed earlier. Nobody may use the model meanwhile.
        """
        if not self._layers or not packing_pays(self._layers[0].weight):
            return False
        return self._packed.refresh()

    @contextlib.contextmanager
    def on(self, dtype: torch.dtype, device: torch.device, tokens: int) -> Iterator[None]:
        """Use other products in this context, where they pay for so many tokens."""
        if device.type != "cpu" or fastest(dtype, tokens) == ("usual", "usual"):
            yield
            return
        with exchanged(self._forwards):
            yield


def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear`, by whichever product is the fastest here."""
    if states.dtype != weight.dtype or weight.device.type != "cpu" or torch.is_grad_enabled():
        return functional.linear(states, weight, bias)
    rows = states.numel() // weight.shape[1]
    with_packed, without = fastest(weight.dtype, rows)
    copy = packed_of(weight) if with_packed == "packed" else None
    kind = without if with_packed == "packed" and copy is None else with_packed
    if kind == "usual":
        return functional.linear(states, weight, bias)
    flat = states.reshape(rows, -1)
    if copy is not None:
        return times_packed(flat, copy, bias).view(*states.shape[:-1], -1)
    out = PRODUCTS[kind](flat, weight)
    if bias is not None:
        out = out + bias
    return out.reshape(*states.shape[:-1], -1)


def fastest(dtype: torch.dtype, rows: int) -> tuple[Kind, Kind]:
    """The fastest product for so many rows: where packed weights are at hand, and where they are not.

    In float16 PyTorch's other kernels are slower.
    """
    if rows < 1 or dtype not in (torch.float32, torch.bfloat16):
        return "usual", "usual"
    # What was measured for one, two, four and eight rows goes for the numbers in between.
    like = 1 << (rows - 1).bit_length() if rows <= MOST_FEW else max((n for n in _MANY if n <= rows), default=_MANY[0])
    return _timed(dtype, like, torch.get_num_threads())


def packing_pays(weight: Tensor) -> bool:
    """Whether packed copies of such weights are faster for any number of rows."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    return any(fastest(weight.dtype, rows)[0] == "packed" for rows in (MOST_FEW, _MANY[0]))


def weight_first(states: Tensor, weight: Tensor) -> Tensor:
    """As the product of the weight and the transposed states."""
    rows = len(states)
    if rows == 1:
        states = torch.cat((states, states))
    return torch.mm(weight, states.t())[:, :rows].t().contiguous()


def vector(states: Tensor, weight: Tensor) -> Tensor:
    """Of a single row: as a matrix-vector product."""
    return torch.mv(weight, states[0])[None]


PRODUCTS: dict[Kind, Product] = {"usual": functional.linear, "weight_first": weight_first, "vector": vector}


@functools.cache
def _timed(dtype: torch.dtype, rows: int, threads: int) -> tuple[Kind, Kind]:  # noqa: ARG001 - timed for it
    """See `fastest`. Chosen where it is clearly faster.

    Clearly, so that two processes of one machine do not come to different ends and round differently. Packed weights
    round as the usual product does on most CPUs, so less will do for them.
    """
    # 42 MB in bfloat16, which no cache holds; many rows take their time on fewer.
    weights = torch.ones(24 if rows <= MOST_FEW else 6, 1536, 576, dtype=dtype)
    states = torch.ones(rows, 576, dtype=dtype)
    kinds: list[Kind] = ["usual"]
    if rows <= MOST_FEW and dtype == torch.float32:
        kinds.append("weight_first")
    elif rows == 1 and torch.cpu._is_avx512_bf16_supported():  # noqa: SLF001 - in float32 arithmetic it is slow
        kinds.append("vector")
    with torch.inference_mode():
        plain = list(weights)
        timed: list[tuple[Callable[[Tensor], Tensor], list[Tensor]]] = [
            (functools.partial(PRODUCTS[kind], states), plain) for kind in kinds
        ]
        copies = [copy for weight in weights if (copy := packed(weight)) is not None]
        if len(copies) == len(plain):
            timed.append((lambda copy: times_packed(states, copy, None), copies))
        seconds = _seconds(timed)
    usual = seconds[0]
    best, least = next(
        (of for of in zip(kinds[1:], seconds[1:], strict=False) if of[1] < _CLEARLY * usual), ("usual", usual)
    )
    if len(seconds) == len(kinds):
        return best, best
    of_packed = seconds[-1]
    if best == "usual":
        return ("packed" if of_packed < _PACKED_CLEARLY * usual else "usual"), "usual"
    return ("packed" if of_packed < _CLEARLY * least else best), best


def _seconds(timed: list[tuple[Callable[[Tensor], Tensor], list[Tensor]]]) -> list[float]:
    """Of each product the best pass over all weights.

    They take turns, because a machine's speed changes from one moment to the next, and some differ by a few percent.
    """
    best = [math.inf] * len(timed)
    for _ in range(_PASSES):
        for i, (multiplied, weights) in enumerate(timed):
            started = time.perf_counter()
            for weight in weights:
                multiplied(weight)
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: linear(states, layer.weight, layer.bias)
