"""Attention of a prompt's new tokens over a sequence, in half precision on a CPU: as a few large products.

    softmax(Q K^T * scaling + causal mask) V        (Vaswani et al. 2017, section 3.2.1)

PyTorch's kernel multiplies small tiles of every head in turn. Here all heads that share a key head are one product, and
so is each pass over the values: the same sums, on some processors in half of the time. So both are timed once. As in
transformers' `eager` attention, scores and weights are rounded to the states' type in between (the softmax itself is
float32).
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 256
"""Queries of a block. Keys behind its last query are not read."""
_MOST_BYTES = 16 << 20
"""Scores of a block; the thread keeps room for them and for the weights."""


_CLEARLY = 0.8
_scratch = threading.local()


@functools.cache
def products_pay(dtype: torch.dtype) -> bool:
    """Whether `attend_prompt` is clearly faster than PyTorch's kernel."""
    if dtype not in (torch.bfloat16, torch.float16):
        return False
    with torch.inference_mode():
        query, key = torch.ones(1, 8, 96, 64, dtype=dtype), torch.ones(1, 4, 768, 64, dtype=dtype)
        mask = torch.ones(96, 768, dtype=torch.bool).tril_(768 - 96)
        several = key.repeat_interleave(2, 1)
        usual = _seconds(lambda: functional.scaled_dot_product_attention(query, several, several, attn_mask=mask))
        return _seconds(lambda: attend_prompt(query, key, key, 0.125)) < _CLEARLY * usual


def _seconds(call: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def attend_prompt(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """The last queries of a sequence, each over all keys up to its own.

    Args:
        query: (1, heads, n, dim), of the last n tokens.
        key: (1, kv_heads, keys, dim), n or more; `heads` is a multiple of `kv_heads`.
        value: (1, kv_heads, keys, dim).
        scaling: Factor of the scores.

    Returns:
        (1, n, heads, dim) in the query's type.
    """
    _, heads, n, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    known, group = keys - n, heads // kv_heads
    grouped, transposed = query[0].reshape(kv_heads, group, n, dim), key[0].transpose(1, 2)
    output = query.new_empty(1, n, heads, value.shape[3])
    of_heads = output[0].view(n, kv_heads, group, -1)
    size = max(min(_BLOCK, _MOST_BYTES // (heads * keys * query.element_size())), 1)
    for start in range(0, n, size):
        end = min(start + size, n)
        rows, seen = end - start, known + end
        part = grouped[:, :, start:end].reshape(kv_heads, group * rows, dim)
        scores, weights = _scratch_of(query, kv_heads, group * rows, seen)
        torch.baddbmm(scores, part, transposed[:, :, :seen], beta=0, alpha=scaling, out=scores)
        future = query.new_full((rows, rows), float("-inf")).triu_(1)
        scores.view(kv_heads, group, rows, seen)[..., known + start :] += future
        torch.softmax(scores, -1, out=weights)
        of_block = torch.bmm(weights, value[0, :, :seen]).view(kv_heads, group, rows, -1)
        of_heads[start:end] = of_block.permute(2, 0, 1, 3)
    return output


def _scratch_of(like: Tensor, *shape: int) -> Tensor:
    """Two tensors of a shape. New memory for them in every layer would take as long as the products."""
    size = 2 * math.prod(shape)
    kept: Tensor | None = getattr(_scratch, "kept", None)
    kind = (like.dtype, torch.is_inference_mode_enabled())
    if kept is None or (kept.dtype, kept.is_inference()) != kind or kept.numel() < size:
        kept = _scratch.kept = like.new_empty(size)
    return kept[:size].view(2, *shape)


def sees_all_before(mask: Tensor | None, queries: int, keys: int) -> bool:
    """Whether a kernel's mask lets each of the last queries see all keys up to its own, and none behind.

    Args:
        mask: Boolean (true: may attend) or additive, (1 or heads, 1, queries, keys); None is PyTorch's own causal
            pattern, which begins at the first key.
        queries: How many.
        keys: All.
    """
    if mask is None:
        return queries == keys
    seen = mask if mask.dtype == torch.bool else mask == 0
    if seen.shape[-2:] != (queries, keys):
        return False
    return bool((seen == torch.ones_like(seen).tril_(keys - queries)).all())
