"""How the new tokens of several sequences lie in one forward, and how keys and values get to each one's own cache.

One token each is a batch: (rows, 1). Any number each is *packed*: all tokens one after another in a single batch row,
(1, tokens). Nothing is padded, so no work is done for nothing and nothing but a sequence's own tokens can ever enter
its cache. What belongs together only attention has to know (see `row_attention`); every other layer takes tokens one
by one, wherever they lie.
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
    """Whether the model can leave out logits that nobody wants."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


class PackedLayout:
    """The new tokens of several sequences, all of them with growing layers, as the input of one forward.

    Args:
        sequences: What is known; it grows while the forward runs, the ids are left to the caller.
        new: The tokens of each that enter the forward, at least one.
    """

    def __init__(self, sequences: Sequence[SequenceCache], new: Sequence[Sequence[int]]) -> None:
        self.sequences = sequences
        self.new = new
        self.lengths = [len(ids) for ids in new]
        self.packed = any(n > 1 for n in self.lengths)

    def arguments(self, device: torch.device, *, logits_kept: bool) -> dict[str, Any]:
        """The model's arguments: ids and positions, (rows, 1) or (1, tokens), the cache, and what logits are wanted.

        Args:
            device: The model's.
            logits_kept: See `keeps_logits`.
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
        """(rows, vocabulary) at each row's last token, of logits at all tokens or at the last ones alone."""
        if not self.packed:
            return logits[:, -1]
        return logits[0] if logits.shape[1] == len(self.new) else logits[0, self._ends(logits.device)]

    def split(self, states: Tensor) -> Sequence[Tensor]:
        """Each row's own (1, heads, its tokens, dim) of (batch, heads, tokens, dim)."""
        return states.split(self.lengths, dim=2) if self.packed else states.split(1)

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """(batch, tokens, heads, dim) of each row's own (1, its tokens, heads, dim)."""
        return torch.cat(list(outputs), dim=1 if self.packed else 0)

    def undo(self) -> None:
        """Cut every sequence back to its ids, after a forward that failed on its way through the layers."""
        for sequence in self.sequences:
            sequence.truncate(len(sequence.ids))

    def _ends(self, device: torch.device) -> Tensor:
        """(rows,) where each row's last token lies, of a packed layout."""
        return torch.tensor(self.lengths, device=device).cumsum(0) - 1

    def _cache(self) -> Cache:
        layers = zip(*(sequence.cache.layers for sequence in self.sequences), strict=True)
        return Cache(layers=[PackedLayer(self, rows) for rows in layers])


class PackedLayer(DynamicLayer):
    """One layer of several sequences, as one forward over new tokens of all of them sees it.

    New keys and values go to each sequence's own buffer. What `update` returns is only the forward's own; attention
    reads the buffers itself (see `row_attention`), so rows need neither padding nor copying, and come and go freely.
    """

    def __init__(self, layout: PackedLayout, rows: Sequence[GrowingLayer]) -> None:
        super().__init__()
        self._layout = layout
        self._rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, tokens, dim), each row's part to its own sequence."""
        keys, values = self._layout.split(key_states), self._layout.split(value_states)
        for row, key, value in zip(self._rows, keys, values, strict=True):
            row.update(key, value)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """0: positions are given explicitly."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Those of a mask that nobody needs: each row's attention has its own."""
        return query_length, 0
