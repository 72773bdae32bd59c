"""Attention of several sequences in one forward pass, each over its own keys and values, and recording of its weights.

    softmax(Q K^T * scaling + mask) V        (Vaswani et al. 2017, section 3.2.1)

Knows the batch layout and the model's own kernel, but not how a model is made to use this (see `attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rag_backbone.engine.batching.packed_layout import PackedLayout
from rag_backbone.engine.batching.shared_prefix import SharedPrefix, attend_with_shared_prefix

if TYPE_CHECKING:
    from torch import Tensor, nn

_MASKED = ("sdpa", "eager")
"""Kernels for which this module can build a mask."""

Kernel = Callable[..., "tuple[Tensor, Tensor | None]"]


@dataclass
class AttentionStep:
    """Inputs of our attention function for one forward pass, and the weights that it records."""

    layer: int
    """The last attention layer."""
    queries: int = 0
    """Number of last queries to record; with `rows`, the last one of each sequence."""
    rows: PackedLayout | None = None
    """The layout of the sequences whose new tokens are in this forward pass."""
    alike: Sequence[SharedPrefix] = ()
    """Groups of sequences that share a prefix, in a forward pass with one token each."""
    products: bool = False
    """Whether single queries are computed in float32 here instead of by the kernel."""
    weights: list[Tensor] = field(default_factory=list)
    """One tensor (1 or batch, heads, queries, keys) float32; with `rows`, one per sequence."""
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    """Mask by number of queries and keys and by window; the masks of all layers are the same."""
    check: bool = False
    reproduces: bool = False

    def records(self, module: nn.Module) -> bool:
        """Return whether to record the weights of this attention layer."""
        return self.queries > 0 and getattr(module, "layer_idx", None) == self.layer


def attend_per_sequence(
    function: Kernel,
    kernel: str,
    step: AttentionStep,
    module: nn.Module,
    query: Tensor,
    kwargs: dict[str, Any],
) -> Tensor:
    """Compute the attention of each sequence's queries over its own keys and values.

    Args:
        function: The model's own kernel.
        kernel: The kernel's name.
        step: The forward pass.
        module: The attention layer.
        query: (batch, heads, tokens, dim), arranged as in the layout.
        kwargs: Arguments that the model passes to its kernel.

    Returns:
        (batch, tokens, heads, dim).
    """
    assert step.rows is not None
    # `position_ids` covers all sequences; a kernel for packed sequences would infer their boundaries from it.
    kwargs = {name: given for name, given in kwargs.items() if name != "position_ids"}
    together = _attend_groups(step, module, query, kwargs)
    outputs = []
    for i, queries in enumerate(step.rows.split(query)):
        if i in together:
            output, weights = together[i]
            if step.records(module):
                step.weights.append(weights)
        else:
            layer = step.rows.sequences[i].cache.layers[module.layer_idx]
            output = attend_sequence(function, kernel, step, module, queries, (layer.keys, layer.values), kwargs)
        outputs.append(output)
    return step.rows.joined(outputs)


def _attend_groups(
    step: AttentionStep, module: nn.Module, query: Tensor, kwargs: dict[str, Any]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Compute the attention of sequences that share a prefix.

    Returns:
        By position in the batch: (1, 1, heads, dim), and the weights, (1, heads, 1, keys) float32.
    """
    assert step.rows is not None
    window = kwargs.get("sliding_window")
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for group in step.alike:
        layers = [step.rows.sequences[i].cache.layers[module.layer_idx] for i in group.rows]
        if window and any(layer.length > window for layer in layers):  # windows start at different tokens
            continue
        states = [(layer.keys, layer.values) for layer in layers]
        outputs, weights = attend_with_shared_prefix(
            query[list(group.rows)], states, group.length, scaling_of(query, kwargs)
        )
        found |= zip(group.rows, zip(outputs.split(1), weights, strict=True), strict=True)
    return found


def attend_sequence(
    function: Kernel,
    kernel: str,
    step: AttentionStep,
    module: nn.Module,
    query: Tensor,
    states: tuple[Tensor, Tensor],
    kwargs: dict[str, Any],
) -> Tensor:
    """Compute the attention of one sequence's last n queries, and record the weights of the last one if requested.

    Args:
        function: The model's own kernel.
        kernel: The kernel's name.
        step: The forward pass.
        module: The attention layer.
        query: (1, heads, n, dim).
        states: Keys and values of the whole sequence, each (1, kv_heads, tokens, dim).
        kwargs: Arguments that the model passes to its kernel.

    Returns:
        (1, n, heads, dim).
    """
    n, length, window = query.shape[2], states[0].shape[2], kwargs.get("sliding_window") or None
    seen = length if window is None else min(length, window + n - 1)  # no query sees the keys before these
    key, value = (tensor[:, :, length - seen :] for tensor in states)
    weights = None
    if n == 1 and step.products:
        output, weights = attend_one(query, key, value, scaling_of(query, kwargs))
    else:
        output = function(module, query, key, value, _mask(step, kernel, n, key, window), **kwargs)[0]
    if step.records(module):
        if weights is None:
            last = key if window is None else key[:, :, -window:]
            weights = causal_attention_weights(query, last, None, scaling_of(query, kwargs), 1)
        step.weights.append(functional.pad(weights, (length - weights.shape[-1], 0)))  # zeros before the window
    return output


def _mask(step: AttentionStep, kernel: str, n: int, key: Tensor, window: int | None) -> Tensor | None:
    """Return which keys each of the last n positions sees, in the kernel's format: (1, 1, n, keys) or None.

    A kernel that is not in `_MASKED` gets no mask; trying out the model shows whether the result is right without one.
    """
    keys = key.shape[2]
    unlimited = window is None or keys <= window
    # PyTorch's own causal mask starts at the first key, so it is right only if there are no earlier keys.
    if n == 1 or kernel not in _MASKED or (kernel == "sdpa" and n == keys and unlimited):
        return None
    if (n, keys, window) not in step.masks:
        at = torch.arange(keys, device=key.device)
        query = at[keys - n :, None]
        sees = at <= query
        if window is not None:
            sees &= at > query - window
        if kernel == "sdpa":
            mask = sees[None, None]
        else:
            mask = key.new_zeros(1, 1, n, keys).masked_fill_(~sees, torch.finfo(key.dtype).min)
        step.masks[n, keys, window] = mask
    return step.masks[n, keys, window]


def attend_one(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Compute the attention of one query over all keys in float32.

    Args:
        query: (1, heads, 1, dim).
        key: (1, kv_heads, keys, dim); `heads` is a multiple of `kv_heads`.
        value: (1, kv_heads, keys, dim).
        scaling: Factor of the scores.

    Returns:
        (1, 1, heads, dim) in the query's type, and the weights: (1, heads, 1, keys) float32.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    weights = causal_attention_weights(query, key, None, scaling, 1)
    output = torch.matmul(weights.reshape(1, kv_heads, heads // kv_heads, -1), value.float())
    return output.to(query.dtype).reshape(1, 1, heads, -1), weights


def causal_attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, queries: int) -> Tensor:
    """Return the softmax attention weights of the last `queries` positions (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (batch, heads, q, dim).
        key: (batch, kv_heads, keys, dim); `heads` is a multiple of `kv_heads`.
        mask: None (causal, the last query sees every key), boolean (true: may attend) or additive, broadcastable to
            (batch, heads, q, keys).
        scaling: Factor of the scores.
        queries: How many of the last queries to compute.

    Returns:
        (batch, heads, queries, keys) float32.
    """
    batch, heads, _, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    last = query[:, :, -queries:]
    n = last.shape[2]
    # Grouped heads share a key head: fold the group into the query axis instead of repeating the keys.
    grouped = last.reshape(batch, kv_heads, (heads // kv_heads) * n, dim)
    # In float32, also for half precision: on a CPU a half-precision product is set up again for every key length.
    scores = torch.matmul(grouped.float(), key.float().transpose(2, 3)).reshape(batch, heads, n, keys) * scaling
    if mask is None:
        if n > 1:
            position = torch.arange(keys, device=key.device)
            future = position[None, :] > position[keys - n :, None]  # (queries, keys)
            scores = scores.masked_fill(future, float("-inf"))
    else:
        rows = mask[:, :, -n:, :keys]
        boolean = rows.dtype == torch.bool
        scores = scores.masked_fill(~rows, float("-inf")) if boolean else scores + rows.float()
    return torch.softmax(scores, dim=-1)


def scaling_of(query: Tensor, kwargs: dict[str, Any]) -> float:
    """Return the factor of the scores that the model passes to its kernel, or the default."""
    scaling = kwargs.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else float(scaling)
