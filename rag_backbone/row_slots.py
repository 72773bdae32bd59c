"""Rows that decode together: each one's own keys and values in one batch, from step to step.

Every row keeps its keys and values for itself (see `kv_cache`), so a step over several rows is many small products, and
on a CPU in half precision a conversion of all that is read. Rows usually stay together for dozens of steps. Here each
has a *slot* of a common buffer that holds what is its own (on a CPU, what rows have in common is read from one of them,
see `common_beginning`). A step appends one token to every slot and is a few products over the batch (see `slot_step`).

Rows come, go and pause as they like; a slot catches up with its row before the next step, and what it held of another
row is erased before. The other way round, a row catches up with its slot (see `SequenceCache.fall_behind`) when
somebody else wants its cache: before that, the latest tokens' keys and values are in the slot alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from rag_backbone.common_beginning import LEAST, Alike
from rag_backbone.kv_cache import GrowingLayer, SequenceCache
from rag_backbone.slot_step import Slot, SlotStep, fused_on

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.row_layout import RowLayout

MOST_BYTES = 512 << 20
"""On a CPU."""
MOST_DEVICE_BYTES = 2 << 30
_ROOM = 256
"""Tokens by which the slots' room grows."""
_IDLE = 4
"""Steps after which a row that has not come again hardly will."""
_PAUSING = 4
"""Of so many rows one may pause and keep its slot."""
_WASTE = 4.0
"""Tokens that a step reads, to those that rows have, beyond which the batch does not pay. Time with slots to time
without, measured when plain products attended to them: six rows of 60 to 350 tokens of their own (twice what they have
is read) 0.80 in bfloat16 and 0.93 in float32; seven of 40 and one of 350 (4.4 times) 0.81 and 0.98."""


class RowSlots:
    """The slots of one model's rows. Used under the engine's lock.

    Args:
        most_bytes: Memory for all slots; steps that would need more go without. By default what suits the device.
        holds_alone: Whether a step's new keys and values go to slots alone, so that rows catch up when they have to;
            right only if all of the model's layers use slots.
    """

    def __init__(self, most_bytes: int | None = None, *, holds_alone: bool = False) -> None:
        self.holds_alone = holds_alone
        self._most = most_bytes
        self._slots: list[Slot] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        """Of each layer keys and values, (kv_heads, slots, room, dim)."""
        self._step = 0

    def step(self, rows: RowLayout, groups: Sequence[Alike]) -> SlotStep | None:
        """What a forward over one token of each row needs; None if other ways are better for them."""
        sequences = rows.sequences
        if not all(sequence.ids for sequence in sequences):  # a first token: there are no buffers yet
            return None
        layers = cast("list[GrowingLayer]", sequences[0].layers)
        self._step += 1
        lengths = [len(sequence.ids) for sequence in sequences]
        starts = [0] * len(sequences)
        for group in groups:
            for row in group.rows:
                starts[row] = group.length
        places = self._places(sequences)
        starts = [self._start(place, row, start) for place, row, start in zip(places, sequences, starts, strict=True)]
        room = max(length + 1 - start for length, start in zip(lengths, starts, strict=True))
        span = max(places) + 1
        if span * room > _WASTE * sum(length + 1 - start for length, start in zip(lengths, starts, strict=True)):
            return None
        if not self._make_room(layers, span, room):
            return None
        for place, sequence, start in zip(places, sequences, starts, strict=True):
            self._catch_up(place, sequence, start)
        slots = [self._slots[place] for place in places]
        behind = self._catch_up_row if self.holds_alone else None
        return SlotStep(self._buffers, slots, places, lengths, groups, sequences, behind)

    def _places(self, sequences: Sequence[SequenceCache]) -> list[int]:
        """Each row's slot, its own or one that it may have."""
        own = {id(slot.row()): i for i, slot in enumerate(self._slots) if slot.row is not None}
        # A step computes all slots up to the last one used, so few are left for rows that pause, and rows far out move.
        most = len(sequences) + len(sequences) // _PAUSING
        places = [own.get(id(sequence), most) for sequence in sequences]
        free = sorted(set(range(most)) - set(places), key=lambda i: (self._wanted(i), i))
        left = iter(free)
        return [next(left) if place >= most else place for place in places]

    def _wanted(self, place: int) -> int:
        """By when a row may come back to a slot: 0 if it hardly will, else the later it left."""
        if place >= len(self._slots):
            return 0
        slot = self._slots[place]
        gone = slot.row is None or slot.row() is None or self._step - slot.used > _IDLE
        return 0 if gone else slot.used

    def _start(self, place: int, sequence: SequenceCache, start: int) -> int:
        """Where the row's own part begins: where its slot has it, unless much would be read in vain.

        Of what is common some is left to each row of a group, as the kernel wants it.
        """
        if place < len(self._slots) and (slot := self._slots[place]).holds(sequence):
            least = max(start - LEAST, min(start, 1))
            return slot.start if least <= slot.start <= start else start
        return start

    def _make_room(self, layers: Sequence[GrowingLayer], span: int, room: int) -> bool:
        if self._buffers and span <= self._buffers[0][0].shape[1] and room <= self._buffers[0][0].shape[2]:
            return True
        if self._buffers:
            span, room = max(span, self._buffers[0][0].shape[1]), max(room, self._buffers[0][0].shape[2])
        room = -(-room // _ROOM) * _ROOM
        if any(layer.keys.shape[3] != layer.values.shape[3] for layer in layers):  # which PyTorch's kernel cannot do
            return False
        first = layers[0].keys
        # On a CPU few queries in half precision take longer than in float32.
        dtype = torch.float32 if fused_on(first.device) else first.dtype
        usual = MOST_BYTES if first.device.type == "cpu" else MOST_DEVICE_BYTES
        most = usual if self._most is None else self._most
        states = [(layer.keys, layer.values) for layer in layers]
        of_token = sum(part.shape[1] * part.shape[3] * dtype.itemsize for parts in states for part in parts)
        if span * room * of_token > most:
            return False
        for slot in self._slots:
            if slot.row is not None and (row := slot.row()) is not None:
                row.catch_up()
        self._slots, self._buffers = [], []
        self._buffers = [
            (_buffer(keys, span, room, dtype), _buffer(values, span, room, dtype)) for keys, values in states
        ]
        self._slots = [Slot() for _ in range(span)]
        return True

    def _catch_up(self, place: int, sequence: SequenceCache, start: int) -> None:
        """Let a slot hold all that the row has of its own."""
        slot, length = self._slots[place], len(sequence.ids)
        slot.used = self._step
        if not slot.holds(sequence) or slot.start != start or slot.end > length:
            sequence.catch_up()
            if slot.row is not None and (before := slot.row()) is not None:
                before.catch_up()
            for other in self._slots:
                if other.holds(sequence):  # from where it moves
                    other.row = None
            left = slice(length - start, slot.dirty)  # what its own does not overwrite
            for keys, values in self._buffers if left.start < left.stop else ():
                keys[:, place, left].zero_()
                values[:, place, left].zero_()
            slot.row, slot.start, slot.end, slot.dirty = weakref.ref(sequence), start, start, length - start
        if slot.end < length:
            new, there = slice(slot.end, length), slice(slot.end - start, length - start)
            slot.dirty = max(slot.dirty, length - start)
            for layer, (keys, values) in zip(cast("list[GrowingLayer]", sequence.layers), self._buffers, strict=True):
                keys[:, place, there] = layer.keys[0, :, new]
                values[:, place, there] = layer.values[0, :, new]
            slot.end = length

    def _catch_up_row(self, sequence: SequenceCache) -> None:
        """Let a row hold all that its slot does."""
        place = next(i for i, slot in enumerate(self._slots) if slot.holds(sequence))
        slot = self._slots[place]
        for layer, (keys, values) in zip(cast("list[GrowingLayer]", sequence.layers), self._buffers, strict=True):
            if layer.length < slot.end:
                new = slice(layer.length - slot.start, slot.end - slot.start)
                layer.update(keys[None, :, place, new], values[None, :, place, new])


def _buffer(like: Tensor, slots: int, room: int, dtype: torch.dtype) -> Tensor:
    return like.new_zeros(like.shape[1], slots, room, like.shape[3], dtype=dtype)
