"""Arranges the new tokens of several sequences in one forward pass, and routes keys and values to each one's cache.

With one token per sequence the layout is a batch: (rows, 1). Otherwise it is *packed*: all tokens lie one after another
in a single batch row, (1, tokens). Nothing is padded, so no computation is wasted and only a sequence's own tokens can
enter its cache. Only attention needs to know which tokens belong together (see `sequence_attention`); every other layer
processes tokens one by one.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from rag_backbone.engine.kv_cache import GrowingLayer, SequenceCache

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def keeps_logits(model: PreTrainedModel) -> bool:
    """Return whether the model can skip computing logits that are not needed."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


class PackedLayout:
    """The new tokens of several sequences as the input of one forward pass; all sequences have growing layers.

    Args:
        sequences: The caches. Their layers grow during the forward pass; the caller extends their ids.
        new: The tokens of each sequence that enter the forward pass, at least one.
    """

    def __init__(self, sequences: Sequence[SequenceCache], new: Sequence[Sequence[int]]) -> None:
        self.sequences = sequences
        self.new = new
        self.lengths = [len(ids) for ids in new]
        self.packed = any(n > 1 for n in self.lengths)

    def arguments(self, device: torch.device, *, logits_kept: bool) -> dict[str, Any]:
        """Return the model's arguments: ids and positions, (rows, 1) or (1, tokens), the cache, and the logits to keep.

        Args:
            device: The model's device.
            logits_kept: The result of `keeps_logits`.
        """
        ids = torch.tensor([token for row in self.new for token in row], device=device)
        starts = [len(sequence.ids) for sequence in self.sequences]
        positions = [at for start, n in zip(starts, self.lengths, strict=True) for at in range(start, start + n)]
        shape = (1, -1) if self.packed else (-1, 1)
        arguments = {
            "input_ids": ids.view(shape),
            "position_ids": torch.tensor(positions, device=device).view(shape),
            "past_key_values": self._cache(),
            "use_cache": True,
        }
        if logits_kept:
            arguments["logits_to_keep"] = self._ends(device) if self.packed else 1
        return arguments

    def last(self, logits: Tensor) -> Tensor:
        """Return (rows, vocabulary), the logits at each sequence's last token.

        Args:
            logits: The model's logits, at all tokens or at the last ones only.
        """
        if not self.packed:
            return logits[:, -1]
        return logits[0] if logits.shape[1] == len(self.new) else logits[0, self._ends(logits.device)]

    def split(self, states: Tensor) -> Sequence[Tensor]:
        """Split (batch, heads, tokens, dim) into one (1, heads, its tokens, dim) per sequence."""
        return states.split(self.lengths, dim=2) if self.packed else states.split(1)

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """Join one (1, its tokens, heads, dim) per sequence into (batch, tokens, heads, dim)."""
        return torch.cat(list(outputs), dim=1 if self.packed else 0)

    def _ends(self, device: torch.device) -> Tensor:
        """Return the position of each sequence's last token in a packed layout: (rows,)."""
        return torch.tensor(self.lengths, device=device).cumsum(0) - 1

    def _cache(self) -> Cache:
        layers = zip(*(sequence.cache.layers for sequence in self.sequences), strict=True)
        return Cache(layers=[PackedLayer(self, rows) for rows in layers])


class PackedLayer(DynamicLayer):
    """One layer of several sequences in a forward pass over new tokens of all of them.

    New keys and values are appended to each sequence's own buffer. `update` returns only those of the forward pass;
    attention reads the buffers itself (see `sequence_attention`), so sequences need neither padding nor copying and can
    join and leave freely.
    """

    def __init__(self, layout: PackedLayout, rows: Sequence[GrowingLayer]) -> None:
        super().__init__()
        self._layout = layout
        self._rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, tokens, dim), each part to its own sequence."""
        keys, values = self._layout.split(key_states), self._layout.split(value_states)
        for row, key, value in zip(self._rows, keys, values, strict=True):
            row.update(key, value)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return 0: positions are given explicitly."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the sizes of a mask that is never used: the attention of each sequence builds its own."""
        return query_length, 0
