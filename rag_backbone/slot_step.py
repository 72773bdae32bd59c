"""Attention of one decoding step over rows whose own keys and values are in slots of one batch (see `row_slots`).

    scores of row i = [ q_i K_common^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)

All of a step's states are ordered by key head, then slot: so products over what is common and over what is each row's
own give tensors that lie side by side, and nothing has to be copied in between.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rag_backbone.common_beginning import Alike

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.kv_cache import SequenceCache


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
    index: Tensor
    """Their slots."""
    hidden: Tensor | None
    """(rows or, of the only group, slots; length): common keys that are in a row's slot too, and count once."""


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
        # Of fewer slots than there are a CPU makes a product for each key head; elsewhere that takes longer.
        self._span = max(places) + 1 if device.type == "cpu" else buffers[0][0].shape[1]
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
        bias = torch.zeros(self._span, 1, self._used, device=device).masked_fill_(
            torch.arange(self._used, device=device) >= torch.tensor(held, device=device)[:, None, None], float("-inf")
        )
        # (kv_heads, span, 1, used): minus infinity where a slot holds nothing of its row.
        self._bias = bias.repeat(buffers[0][0].shape[0], 1, 1, 1)
        self._whole = len(groups) == 1 and len(groups[0].rows) == len(places)
        self._groups = [self._group(group) for group in groups]
        grouped = {row for group in groups for row in group.rows}
        alone = [place for row, place in enumerate(places) if row not in grouped]
        self._alone = torch.tensor(alone, device=device) if alone else None

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

        Scores and their softmax are float32; weights are rounded to the values' type before they meet them, as in
        transformers' `eager` attention.

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
        by_slot = keys.new_empty(kv_heads, span, heads // kv_heads, dim)
        by_slot.copy_(of_slots.view(span, kv_heads, -1, dim).transpose(0, 1)).mul_(scaling)
        own = _scores(by_slot, keys[:, :span, :used].transpose(2, 3), self._bias)
        common, weights, joint = self._weights(layer, by_slot, own)
        output = _product(weights.to(values.dtype), values[:, :span, :used], common).to(query.dtype).transpose(0, 1)
        found = self._recorded(joint, weights) if record else []
        of_rows = output if self._rows is None else output.index_select(0, self._places)
        return of_rows.reshape(rows, 1, heads, -1), found

    def _weights(self, layer: int, query: Tensor, own: Tensor) -> tuple[Tensor | None, Tensor, list[Tensor]]:
        """By slot what common parts give and the weights of its own part; and of each group all weights."""
        if not self._groups:
            return None, torch.softmax(own, -1), []
        if self._whole:
            part, weights = self._attend_common(layer, self._groups[0], query, own)
            return part, weights[..., self._groups[0].length :], [weights]
        values = self._buffers[layer][1]
        common = values.new_zeros(*query.shape[:3], values.shape[3])
        lately, joint = torch.zeros_like(own), []
        for group in self._groups:
            part, weights = self._attend_common(layer, group, query[:, group.index], own[:, group.index])
            common[:, group.index] = part
            lately[:, group.index] = weights[..., group.length :]
            joint.append(weights)
        if self._alone is not None:
            lately[:, self._alone] = torch.softmax(own[:, self._alone], -1)
        return common, lately, joint

    def _attend_common(self, layer: int, group: _Group, query: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """What the common values give, and the weights of common and own keys, both by key head and slot."""
        states = (self._sequences[group.rows[0]].layers or [])[layer]
        keys = states.keys[0, :, : group.length].to(query.dtype)
        values = states.values[0, :, : group.length].to(self._buffers[layer][1].dtype)
        kv_heads, slots, heads, _ = query.shape
        scores = torch.bmm(query.reshape(kv_heads, slots * heads, -1), keys.transpose(1, 2))
        if group.hidden is not None:
            scores.view(kv_heads, slots, heads, -1).masked_fill_(group.hidden[:, None], float("-inf"))
        joined = torch.cat([scores, own.reshape(kv_heads, slots * heads, -1)], -1)
        weights = torch.softmax(joined, -1)
        output = torch.bmm(weights[..., : group.length].to(values.dtype), values)
        return output.view(kv_heads, slots, heads, -1), weights.view(kv_heads, slots, heads, -1)

    def _recorded(self, joint: list[Tensor], weights: Tensor) -> list[Tensor]:
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
        hidden = None
        if any(start != alike.length for start in starts):
            hidden = torch.arange(alike.length, device=device) >= torch.tensor(starts, device=device)[:, None]
            if self._whole:
                by_slot = torch.zeros(self._span, alike.length, dtype=torch.bool, device=device)
                by_slot[self._places] = hidden
                hidden = by_slot
        first = self._sequences[alike.rows[0]]  # from whose own cache the common part is read
        if any(layer.length < alike.length for layer in first.layers or ()):
            first.catch_up()
        return _Group(alike.rows, alike.length, self._places[list(alike.rows)], hidden)


def _scores(query: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Of (kv_heads, span, n, dim) and (kv_heads, span, dim, used), with (kv_heads, span, 1, used) added in float32."""
    return _product(query, keys, bias) if query.dtype == bias.dtype else _product(query, keys) + bias


def _product(left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    """Of each key head and slot: (kv_heads, span, n, k) by (kv_heads, span, k, m)."""
    kv_heads, span, n, _ = left.shape
    if right.stride(0) == span * right.stride(1):  # they are all slots: one batch
        a, b = left.flatten(0, 1), right.flatten(0, 1)
        output = torch.bmm(a, b) if added is None else torch.baddbmm(added.flatten(0, 1), a, b)
        return output.view(kv_heads, span, n, -1)
    # Flattening would copy every key and value.
    output = left.new_empty(kv_heads, span, n, right.shape[3])
    for head in range(kv_heads):
        if added is None:
            torch.bmm(left[head], right[head], out=output[head])
        else:
            torch.baddbmm(added[head], left[head], right[head], out=output[head])
    return output
