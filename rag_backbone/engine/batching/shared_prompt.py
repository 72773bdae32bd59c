"""Several continuations of one prompt in one batch, with the prompt's keys and values held once.

All rows share the prompt, so a step's attention has two parts: every row's query over the prompt's keys, which is one
matrix product for any number of rows, and each row's query over its private suffix. One softmax covers both. A row
holds only what it generated itself, can be truncated to any length, and leaves the batch when it has ended.

    scores of row i = [ q_i K_prompt^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from rag_backbone.engine.batching.shared_prefix import attend_to_prefix
from rag_backbone.engine.kv_cache import GrowingLayer, SequenceCache

if TYPE_CHECKING:
    from torch import Tensor


class SharedPromptLayer(DynamicLayer):
    """One layer: the prompt's keys and values, and those of each row's private suffix."""

    def __init__(self, prompt: GrowingLayer, lengths: Tensor, room: int) -> None:
        super().__init__()
        self._prompt = prompt
        self._lengths = lengths
        self._room = room
        self._own: tuple[Tensor, Tensor] | None = None
        """Keys and values of the private suffixes, each (rows, kv_heads, room, dim)."""

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append each row's (1, kv_heads, 1, dim) to its private suffix."""
        rows, heads, _, dim = key_states.shape
        if self._own is None:
            self._own = (
                key_states.new_zeros(rows, heads, self._room, dim),
                value_states.new_zeros(rows, heads, self._room, value_states.shape[-1]),
            )
        at = torch.arange(rows, device=key_states.device), slice(None), self._lengths
        self._own[0][at] = key_states[:, :, 0]
        self._own[1][at] = value_states[:, :, 0]
        return key_states, value_states

    def attend(self, query: Tensor, scaling: float, window: int | None) -> Tensor:
        """Compute the attention of each row's single query over the prompt and the private suffix.

        Args:
            query: (rows, heads, 1, dim).
            scaling: Factor of the scores.
            window: Length of the sliding window, if the layer has one.

        Returns:
            (rows, 1, heads, dim).
        """
        assert self._own is not None
        rows, heads, _, dim = query.shape
        used = int(self._lengths.max()) + 1
        keys, values = (own[:, :, :used].float() for own in self._own)
        known = self._prompt.length
        kv_heads = keys.shape[1]
        grouped = query.float().reshape(rows, kv_heads, heads // kv_heads, dim) * scaling
        own = torch.matmul(grouped, keys.transpose(2, 3))  # (rows, kv_heads, group, used)
        place = torch.arange(used, device=query.device)
        hidden = place[None] > self._lengths[:, None]  # (rows, used)
        if window is not None:
            hidden |= place[None] <= self._lengths[:, None] - window
        own = own.masked_fill(hidden[:, None, None], float("-inf"))
        if known == 0:
            return _rows_first(torch.matmul(torch.softmax(own, -1), values), query)
        gone = None
        if window is not None:
            gone = torch.arange(known, device=query.device)[None] <= (self._lengths + known - window)[:, None]
        output, weights = attend_to_prefix(grouped, self._prompt.keys[0], self._prompt.values[0], own, gone)
        return _rows_first(output + torch.matmul(weights[..., known:], values), query)

    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        """Keep the given rows, truncating each to its length."""
        self._lengths = lengths
        if self._own is not None:
            self._own = self._own[0][rows], self._own[1][rows]

    def get_seq_length(self) -> int:
        """Return 0: positions are given explicitly."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the sizes of a mask that is never used: a single query sees everything before it."""
        return query_length, 0


class SharedPromptCache(Cache):
    """A cache for decoding `rows` continuations of one sequence in one batch.

    Args:
        prompt: The sequence, with growing layers. It is only read and must not grow while this cache is in use.
        rows: Number of continuations.
        room: Maximum number of tokens per continuation.
    """

    def __init__(self, prompt: SequenceCache, rows: int, room: int) -> None:
        assert prompt.layers is not None
        device = prompt.layers[0].keys.device if prompt.layers[0].is_initialized else None
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        """Length of each row's private suffix: (rows,)."""
        self._known = len(prompt.ids)
        super().__init__(layers=[SharedPromptLayer(layer, self.lengths, room) for layer in prompt.layers])

    @property
    def positions(self) -> Tensor:
        """Position of each row's next token: (rows, 1)."""
        return (self.lengths + self._known)[:, None]

    def keep(self, rows: list[int], lengths: list[int]) -> None:
        """Keep the given rows, truncating each to its length."""
        device = self.lengths.device
        self.lengths = torch.tensor(lengths, dtype=torch.long, device=device)
        chosen = torch.tensor(rows, dtype=torch.long, device=device)
        for layer in self.layers:
            layer.keep(chosen, self.lengths)


def _rows_first(output: Tensor, query: Tensor) -> Tensor:
    """Reshape (rows, kv_heads, group, dim) to (rows, 1, heads, dim) in the query's type."""
    return output.reshape(output.shape[0], 1, -1, output.shape[-1]).to(query.dtype)
