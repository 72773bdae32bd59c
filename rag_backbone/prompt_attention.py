"""Attention of a prompt's new tokens over a sequence, on a CPU.

    softmax(Q K^T * scaling + causal mask) V        (Vaswani et al. 2017, section 3.2.1)

transformers gives PyTorch's kernel a copy of keys and values for every head, and has it translate its mask anew, in
every layer; for two hundred tokens after a thousand that takes as long as the attention itself. Here all heads that
share a key head are queries of one head, and the mask is kept: the same sums in 0.3 to 0.9 of the time.

In half precision there is a second way: scores and their products with the values as a few large products of matrices,
which on some processors is faster than the kernel's small tiles. So both are timed once. As in transformers' `eager`
attention, scores and weights are rounded to the states' type in between there (the softmax itself is float32).
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_BLOCK = 384
"""Queries of a block at most. Keys behind its last query are not read."""
_MOST_BYTES = 16 << 20
"""Scores or mask of a block; the thread keeps room for them."""
_CLEARLY = 0.8
_scratch = threading.local()


def is_for(key: Tensor, value: Tensor) -> bool:
    """Whether `attend_prompt` takes such keys and values, and is the faster way."""
    return key.device.type == "cpu" and key.dtype in _TYPES and key.shape[-1] == value.shape[-1]


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
    heads, n, keys = query.shape[1], query.shape[2], key.shape[2]
    # Of a query there are the scores of all its heads, or the mask of those that share a key head.
    attend, wide = (by_products, heads) if products_pay(query.dtype) else (by_kernel, heads // key.shape[1])
    most = max(min(_BLOCK, _MOST_BYTES // (wide * keys * query.element_size())), 1)
    size = math.ceil(n / math.ceil(n / most))  # of about one size
    blocks = []
    for start in range(0, n, size):
        end = min(start + size, n)
        seen = keys - n + end
        blocks.append(attend(query[:, :, start:end], key[:, :, :seen], value[:, :, :seen], scaling))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


def by_kernel(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """See `attend_prompt`; all in one call of PyTorch's kernel."""
    _, heads, n, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    group = heads // kv_heads
    # A token's heads lie together, so that the last tokens' part of a larger mask is one of fewer tokens.
    grouped = query.view(1, kv_heads, group, n, dim).transpose(2, 3).reshape(1, kv_heads, n * group, dim)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    output = attend(grouped, key, value, 0.0, False, attn_mask=_mask(query, group, keys), scale=scaling)[0]
    return output.view(kv_heads, n, group, dim).permute(1, 0, 2, 3).reshape(1, n, heads, dim)


def by_products(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """See `attend_prompt`; as two products of matrices."""
    _, heads, n, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    group = heads // kv_heads
    grouped = query[0].reshape(kv_heads, group * n, dim)
    scores, weights = _scores_of(query, kv_heads, group * n, keys)
    torch.baddbmm(scores, grouped, key[0].transpose(1, 2), beta=0, alpha=scaling, out=scores)
    future = query.new_full((n, n), float("-inf")).triu_(1)
    scores.view(kv_heads, group, n, keys)[..., keys - n :] += future
    torch.softmax(scores, -1, out=weights)
    output = torch.bmm(weights, value[0]).view(kv_heads, group, n, -1)
    return output.permute(2, 0, 1, 3).reshape(1, n, heads, -1)


@functools.cache
def products_pay(dtype: torch.dtype) -> bool:
    """Whether `by_products` is clearly faster than `by_kernel`. In float32 it never was."""
    if dtype not in (torch.bfloat16, torch.float16):
        return False
    with torch.inference_mode():
        query, key = torch.ones(1, 8, 96, 64, dtype=dtype), torch.ones(1, 4, 768, 64, dtype=dtype)
        of_kernel, of_products = (
            _seconds(functools.partial(attend, query, key, key, 0.125)) for attend in (by_kernel, by_products)
        )
    return of_products < _CLEARLY * of_kernel


def _seconds(call: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def _mask(like: Tensor, group: int, keys: int) -> Tensor:
    """(n * group, keys), additive: each of the last n tokens, all heads of a group, sees what is not behind it.

    A part of a larger one that the thread keeps.
    """
    rows = like.shape[2] * group
    kind = (like.dtype, group, torch.is_inference_mode_enabled())
    kept: tuple[object, Tensor] | None = getattr(_scratch, "mask", None)
    if kept is None or kept[0] != kind or kept[1].shape[0] < rows or kept[1].shape[1] < keys:
        height, width = rows, -(-keys // 256) * 256
        if kept is not None and kept[0] == kind:  # prompts of other lengths may take turns in every layer
            larger = max(height, kept[1].shape[0]), max(width, kept[1].shape[1])
            if math.prod(larger) * like.element_size() <= 4 * _MOST_BYTES:
                height, width = larger
        sees = torch.arange(width) <= torch.arange(width - height // group, width).repeat_interleave(group)[:, None]
        kept = _scratch.mask = kind, like.new_zeros(sees.shape).masked_fill_(~sees, float("-inf"))
    mask = kept[1]
    return mask[mask.shape[0] - rows :, mask.shape[1] - keys :]


def _scores_of(like: Tensor, *shape: int) -> Tensor:
    """Two tensors of a shape. New memory for them in every layer would take as long as the products."""
    size = 2 * math.prod(shape)
    kept: Tensor | None = getattr(_scratch, "scores", None)
    kind = (like.dtype, torch.is_inference_mode_enabled())
    if kept is None or (kept.dtype, kept.is_inference()) != kind or kept.numel() < size:
        kept = _scratch.scores = like.new_empty(size)
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
