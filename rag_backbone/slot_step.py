"""Attention of one decoding step over rows whose own keys and values are in slots of one batch (see `row_slots`).

    scores of row i = [ q_i K_common^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)

On a CPU PyTorch's fused kernel attends to what is common, of all rows at once, and to what is each row's own. It tells
the logarithm of each softmax's sum too, so that both come together in the right parts (as in "online" softmax, Milakov
and Gimelshein 2018, section 3):

    output = lerp(common, own, sigmoid(log-sum of own - log-sum of common))

On other devices all of a row is its own, and their kernel attends to it.
Weights are only computed where they are recorded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from rag_backbone.common_beginning import Alike

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.kv_cache import GrowingLayer, SequenceCache


@dataclass(slots=True)
class Slot:
    """A place of the batch, and what it holds."""

    row: weakref.ref[SequenceCache] | None = None
    start: int = 0
    """Tokens of the row before its own."""
    end: int = 0
    """Tokens of the row up to which the slot holds it."""
    dirty: int = 0
    """Places of the slot that may hold anything."""
    used: int = 0
    """The step that used it last."""

    def holds(self, sequence: SequenceCache) -> bool:
        """Whether it is this row's."""
        return self.row is not None and self.row() is sequence


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that begin alike."""

    rows: tuple[int, ...]
    length: int
    layers: Sequence[GrowingLayer]
    """Of the row from whose cache the common part is read."""
    index: Tensor
    """Their slots."""
    bias: Tensor | None
    """(rows or, of the only group, slots; 1; length): minus infinity at common keys that are in a row's slot too, and
    count once."""


class SlotStep:
    """One forward over one token of each row.

    Args:
        buffers: Of each layer keys and values, (kv_heads, slots, room, dim).
        slots: Of each row.
        places: Of each row its slot's.
        lengths: Tokens of each row before this forward.
        groups: Which rows begin alike.
        sequences: The rows'.
        behind: How rows catch up with their slots; None: nothing is held by slots alone.
    """

    def __init__(
        self,
        buffers: list[tuple[Tensor, Tensor]],
        slots: Sequence[Slot],
        places: list[int],
        lengths: list[int],
        groups: Sequence[Alike],
        sequences: Sequence[SequenceCache],
        behind: Callable[[SequenceCache], None] | None = None,
    ) -> None:
        self._buffers = buffers
        self._behind = behind
        self._slots = slots
        self._lengths = lengths
        self._sequences = sequences
        device = buffers[0][0].device
        # Elsewhere products of fewer slots than there are would need copies.
        self._span = max(places) + 1 if fused_on(device) else buffers[0][0].shape[1]
        self._order = places
        self._places = torch.tensor(places, device=device)
        self._own = [length - slot.start for length, slot in zip(lengths, slots, strict=True)]
        self._used = max(self._own) + 1
        for slot, end in zip(slots, self._own, strict=True):
            slot.dirty = max(slot.dirty, end + 1)
        room = buffers[0][0].shape[2]
        # Where each new token goes, in all slots' tokens; and of each slot whose query it gets (of an unused one any).
        self._ends = torch.tensor(
            [place * room + end for place, end in zip(places, self._own, strict=True)], device=device
        )
        in_order = places == list(range(self._span))
        of_slots = {place: row for row, place in enumerate(places)}
        self._rows = None if in_order else torch.tensor([of_slots.get(i, 0) for i in range(self._span)], device=device)
        held = [self._own[of_slots[i]] + 1 if i in of_slots else 0 for i in range(self._span)]
        # Minus infinity where a slot holds nothing of its row.
        self._bias = torch.zeros(1, self._span, 1, self._used, device=device).masked_fill_(
            torch.arange(self._used, device=device) >= torch.tensor(held, device=device)[:, None, None], float("-inf")
        )
        self._fused = fused_on(device)
        self._mask = self._bias.to(buffers[0][0].dtype)
        self._whole = len(groups) == 1 and len(groups[0].rows) == len(places)
        self._groups = [self._group(group) for group in groups]

    def done(self) -> None:
        """The forward has gone through all layers: what it appended is the rows'."""
        for slot, length, sequence in zip(self._slots, self._lengths, self._sequences, strict=True):
            slot.end = length + 1
            if self._behind is not None:
                sequence.fall_behind(self._behind)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, *, record: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Each row's lone query over its whole sequence.

        In the slots' type; scores and their softmax are float32.

        Args:
            layer: Which.
            query: (rows, heads, 1, dim).
            key: (rows, kv_heads, 1, dim), of the new tokens.
            value: (rows, kv_heads, 1, dim).
            scaling: Factor of the scores.
            record: Whether weights are wanted.

        Returns:
            (rows, 1, heads, dim) in the query's type, and each row's weights if wanted: (1, heads, 1, its tokens).
        """
        keys, values = self._buffers[layer]
        rows, heads, _, dim = query.shape
        kv_heads, span, used = keys.shape[0], self._span, self._used
        for states, new in ((keys, key), (values, value)):
            states.flatten(1, 2).index_copy_(1, self._ends, new.squeeze(2).transpose(0, 1).to(states.dtype))
        of_slots = query if self._rows is None else query.index_select(0, self._rows)
        by_slot = of_slots.view(span, kv_heads, -1, dim).transpose(0, 1).to(keys.dtype)
        keys, values = keys[:, :span, :used], values[:, :span, :used]
        recorded: list[Tensor] = []
        if self._fused:
            output = self._attended(layer, by_slot, keys, values, scaling)
        else:
            output = functional.scaled_dot_product_attention(by_slot, keys, values, self._mask, scale=scaling)
        if record:
            recorded = self._recorded(*self._weights(layer, by_slot, keys, scaling))
        of_rows = output.transpose(0, 1)
        of_rows = of_rows if self._rows is None else of_rows.index_select(0, self._places)
        return of_rows.reshape(rows, 1, heads, -1).to(query.dtype), recorded

    def _attended(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """(kv_heads, span, heads of one, dim)."""
        own, own_sum = _kernel(query, keys, values, self._bias, scaling)
        for group in self._groups:
            if self._whole:
                return self._joined(layer, group, query, own, own_sum, scaling)
            at = group.index
            own[:, at] = self._joined(layer, group, query[:, at], own[:, at], own_sum[:, at], scaling)
        return own

    def _joined(self, layer: int, group: _Group, query: Tensor, own: Tensor, own_sum: Tensor, scaling: float) -> Tensor:
        """What common and own keys and values give together, of (kv_heads, slots, heads of one, dim)."""
        states = group.layers[layer]
        keys = states.keys[:, :, : group.length].to(query.dtype)
        values = states.values[:, :, : group.length].to(query.dtype)
        bias = None if group.bias is None else group.bias.expand(-1, query.shape[2], -1).flatten(0, 1)
        common, common_sum = _kernel(query.flatten(1, 2)[None], keys, values, bias, scaling)
        part = torch.sigmoid(own_sum - common_sum.view(own_sum.shape))
        return torch.lerp(common.view(own.shape), own, part[..., None])

    def _weights(self, layer: int, query: Tensor, keys: Tensor, scaling: float) -> tuple[Tensor, list[Tensor]]:
        """By slot the weights of its own keys, where no other precede; and of each group those of all its keys."""
        query = query * scaling  # first: products of half precision might be too large without
        own = torch.matmul(query, keys.transpose(2, 3)) + self._bias
        joint = []
        for group in self._groups:
            common = group.layers[layer].keys[0, :, None, : group.length].to(query.dtype)
            scores = torch.matmul(query if self._whole else query[:, group.index], common.transpose(2, 3))
            if group.bias is not None:
                scores += group.bias
            joint.append(torch.softmax(torch.cat([scores, own if self._whole else own[:, group.index]], -1), -1))
        return torch.softmax(own, -1), joint

    def _recorded(self, weights: Tensor, joint: list[Tensor]) -> list[Tensor]:
        """Of each row (1, heads, 1, its tokens)."""
        found: dict[int, Tensor] = {}
        for group, of_group in zip(self._groups, joint, strict=True):
            for i, row in enumerate(group.rows):
                of_row = of_group[:, self._order[row] if self._whole else i]
                start, own = self._slots[row].start, self._own[row] + 1
                found[row] = torch.cat([of_row[..., :start], of_row[..., group.length : group.length + own]], -1)
        for row in range(len(self._slots)):
            if row not in found:
                found[row] = weights[:, self._order[row], :, : self._own[row] + 1]
        return [found[row].reshape(1, -1, 1, found[row].shape[-1]) for row in range(len(self._slots))]

    def _group(self, alike: Alike) -> _Group:
        device = self._places.device
        starts = [self._slots[row].start for row in alike.rows]
        bias = None
        if any(start != alike.length for start in starts):
            hidden = torch.arange(alike.length, device=device) >= torch.tensor(starts, device=device)[:, None]
            bias = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, float("-inf"))
            if self._whole:
                bias = bias.new_zeros(self._span, alike.length).index_copy_(0, self._places, bias)
            bias = bias[:, None]
        first = self._sequences[alike.rows[0]]
        if any(layer.length < alike.length for layer in first.layers or ()):
            first.catch_up()
        return _Group(alike.rows, alike.length, first.layers or (), self._places[list(alike.rows)], bias)


def fused_on(device: torch.device) -> bool:
    """Whether slots there are attended to by PyTorch's fused kernel, not by products."""
    return device.type == "cpu"


def _kernel(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
    """PyTorch's kernel on a CPU: what it gives, (batch, heads, n, dim), and the log-sums, (batch, heads, n)."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    output, sums = attend(query, keys, values, 0.0, False, attn_mask=bias, scale=scaling)
    return output, sums
