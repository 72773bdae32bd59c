"""Rows that decode together: each one's own keys and values in one batch, from step to step.

Every row keeps its keys and values for itself (see `kv_cache`), so a step over several rows is many small products, and
on a CPU in half precision a conversion of all that is read. Rows usually stay together for dozens of steps. Here each
has a *slot* of a common buffer that holds what is its own (on a CPU, what rows have in common is read from one of them,
see `common_beginning`). A step appends one token to every slot and is a few products over the batch:

    scores of row i = [ q_i K_common^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)

Rows come, go and pause as they like; a slot catches up with its row before the next step, and what it held of another
row is erased before. The other way round, a row catches up with its slot (see `SequenceCache.fall_behind`) when
somebody else wants its cache: before that, the latest tokens' keys and values are in the slot alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from rag_backbone.common_beginning import LEAST, Alike, attend_common
from rag_backbone.kv_cache import GrowingLayer, SequenceCache

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
_WASTE = 2.0
"""Tokens that the products of a step read, to those that rows have, beyond which the batch does not pay."""


@dataclass(slots=True)
class _Slot:
    row: weakref.ref[SequenceCache] | None = None
    start: int = 0
    """Tokens of the row before its own."""
    end: int = 0
    """Tokens of the row up to which the slot holds it."""
    dirty: int = 0
    """Places of the slot that may hold anything."""
    used: int = -_IDLE
    """The step that used it last."""

    def holds(self, sequence: SequenceCache) -> bool:
        return self.row is not None and self.row() is sequence


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
        self._slots: list[_Slot] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        """Of each layer keys and values, (slots, kv_heads, room, dim); on a CPU in float32, else as rows have them."""
        self._step = 0

    def step(self, rows: RowLayout, groups: Sequence[Alike]) -> SlotStep | None:
        """What a forward over one token of each row needs; None if other ways are better for them."""
        sequences = rows.sequences
        if not all(sequence.ids for sequence in sequences):  # a first token: there are no buffers yet
            return None
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
        if not self._make_room(cast("list[GrowingLayer]", sequences[0].layers), span, room):
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
        """Where the row's own part begins: where its slot has it, unless much would be read in vain."""
        if place < len(self._slots) and (slot := self._slots[place]).holds(sequence):
            return slot.start if start - LEAST <= slot.start <= start else start
        return start

    def _make_room(self, layers: Sequence[GrowingLayer], span: int, room: int) -> bool:
        if self._buffers and span <= self._buffers[0][0].shape[0] and room <= self._buffers[0][0].shape[2]:
            return True
        if self._buffers:
            span, room = max(span, self._buffers[0][0].shape[0]), max(room, self._buffers[0][0].shape[2])
        room = -(-room // _ROOM) * _ROOM
        first = layers[0].keys
        dtype = _dtype_on(first.device, first.dtype)
        usual = MOST_BYTES if first.device.type == "cpu" else MOST_DEVICE_BYTES
        most = usual if self._most is None else self._most
        widths = [part.shape[1] * part.shape[3] for layer in layers for part in (layer.keys, layer.values)]
        if span * room * sum(widths) * dtype.itemsize > most:
            return False
        for slot in self._slots:
            if slot.row is not None and (row := slot.row()) is not None:
                row.catch_up()
        self._slots, self._buffers = [], []
        self._buffers = [
            cast("tuple[Tensor, Tensor]", tuple(
                torch.zeros(span, part.shape[1], room, part.shape[3], dtype=dtype, device=part.device)
                for part in (layer.keys, layer.values)
            )) for layer in layers
        ]  # fmt: skip
        self._slots = [_Slot() for _ in range(span)]
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
                keys[place, :, left].zero_()
                values[place, :, left].zero_()
            slot.row, slot.start, slot.end, slot.dirty = weakref.ref(sequence), start, start, length - start
        if slot.end < length:
            new, there = slice(slot.end, length), slice(slot.end - start, length - start)
            slot.dirty = max(slot.dirty, length - start)
            for layer, (keys, values) in zip(cast("list[GrowingLayer]", sequence.layers), self._buffers, strict=True):
                keys[place, :, there] = layer.keys[0, :, new]
                values[place, :, there] = layer.values[0, :, new]
            slot.end = length

    def _catch_up_row(self, sequence: SequenceCache) -> None:
        """Let a row hold all that its slot does."""
        place = next(i for i, slot in enumerate(self._slots) if slot.holds(sequence))
        slot = self._slots[place]
        for layer, (keys, values) in zip(cast("list[GrowingLayer]", sequence.layers), self._buffers, strict=True):
            if layer.length < slot.end:
                new = slice(layer.length - slot.start, slot.end - slot.start)
                layer.update(keys[place : place + 1, :, new], values[place : place + 1, :, new])


class SlotStep:
    """One forward over one token of each row.

    Args:
        buffers: Of each layer.
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
        slots: Sequence[_Slot],
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
        self._span = max(places) + 1
        self._order = places
        device = buffers[0][0].device
        self._places = torch.tensor(places, device=device)
        self._own = [length - slot.start for length, slot in zip(lengths, slots, strict=True)]
        self._ends = torch.tensor(self._own, device=device)
        self._used = max(self._own) + 1
        for slot, end in zip(slots, self._own, strict=True):
            slot.dirty = max(slot.dirty, end + 1)
        held = torch.zeros(self._span, dtype=torch.long, device=device)
        held[self._places] = self._ends + 1
        # (span, 1, 1, used): minus infinity where a slot holds nothing of its row.
        self._bias = torch.zeros(self._span, self._used, device=device).masked_fill_(
            torch.arange(self._used, device=device) >= held[:, None], float("-inf")
        )[:, None, None]
        by_place = sorted(range(len(places)), key=places.__getitem__)
        self._groups = [self._group(group, [row for row in by_place if row in group.rows]) for group in groups]
        alone = [row for row in by_place if not any(row in group.rows for group in groups)]
        self._alone = self._index(alone) if alone else None

    def done(self) -> None:
        """The forward has gone through all layers: what it appended is the rows'."""
        for slot, length, sequence in zip(self._slots, self._lengths, self._sequences, strict=True):
            slot.end = length + 1
            if self._behind is not None:
                sequence.fall_behind(self._behind)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, *, record: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Each row's lone query over its whole sequence, in float32.

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
        keys[self._places, :, self._ends] = key[:, :, 0].to(keys.dtype)
        values[self._places, :, self._ends] = value[:, :, 0].to(keys.dtype)
        rows, heads, _, dim = query.shape
        kv_heads, span, used = keys.shape[1], self._span, self._used
        by_slot = query.new_zeros(span, kv_heads, heads // kv_heads, dim, dtype=keys.dtype)
        by_slot[self._places] = query.to(keys.dtype).view(rows, kv_heads, -1, dim) * scaling
        own = torch.bmm(by_slot.flatten(0, 1), _flat(keys, span, used).transpose(1, 2)).view(span, kv_heads, -1, used)
        own = own + self._bias  # in float32
        weights, common, joint = self._weights(layer, by_slot, own)
        lately = weights.flatten(0, 1).to(values.dtype)
        output = torch.bmm(lately, _flat(values, span, used)).view(span, kv_heads, heads // kv_heads, -1)
        for index, part in common:
            output[index] += part
        found = self._recorded(joint, weights) if record else []
        return output[self._places].reshape(rows, 1, heads, -1).to(query.dtype), found

    def _weights(
        self, layer: int, query: Tensor, own: Tensor
    ) -> tuple[Tensor, list[tuple[slice | Tensor, Tensor]], list[Tensor]]:
        """By slot the weights of its own part; what common parts give by slots; and all weights of each group."""
        if self._alone is not None and not self._groups:
            return torch.softmax(own, -1), [], []
        weights = torch.zeros_like(own)
        common, joint = [], []
        for group in self._groups:
            states = (self._sequences[group.rows[0]].layers or [])[layer]
            keys, values = states.keys[0, :, : group.length], states.values[0, :, : group.length]
            part, found = attend_common(query[group.index], keys, values, own[group.index], group.hidden)
            weights[group.index] = found[..., group.length :]
            common.append((group.index, part))
            joint.append(found)
        if self._alone is not None:
            weights[self._alone] = torch.softmax(own[self._alone], -1)
        return weights, common, joint

    def _recorded(self, joint: list[Tensor], weights: Tensor) -> list[Tensor]:
        """Of each row (1, heads, 1, its tokens)."""
        found: dict[int, Tensor] = {}
        for group, of_group in zip(self._groups, joint, strict=True):
            for i, row in enumerate(group.rows):
                start, own = self._slots[row].start, self._own[row] + 1
                parts = of_group[i, ..., :start], of_group[i, ..., group.length : group.length + own]
                found[row] = torch.cat(parts, -1)
        for row in range(len(self._slots)):
            if row not in found:
                found[row] = weights[self._order[row], ..., : self._own[row] + 1]
        return [found[row].reshape(1, -1, 1, found[row].shape[-1]) for row in range(len(self._slots))]

    def _index(self, rows: list[int]) -> slice | Tensor:
        together = [self._order[row] for row in rows] == list(range(self._span))
        return slice(None) if together else self._places[rows]

    def _group(self, alike: Alike, rows: list[int]) -> _Group:
        starts = [self._slots[row].start for row in rows]
        hidden = None
        if any(start != alike.length for start in starts):
            device = self._places.device
            hidden = torch.arange(alike.length, device=device) >= torch.tensor(starts, device=device)[:, None]
        first = self._sequences[rows[0]]  # from whose own cache the common part is read
        if any(layer.length < alike.length for layer in first.layers or ()):
            first.catch_up()
        return _Group(rows, alike.length, self._index(rows), hidden)


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that begin alike, in the order of their slots."""

    rows: list[int]
    length: int
    index: slice | Tensor
    """Their slots."""
    hidden: Tensor | None
    """(rows, length) which common keys are in a row's slot too, so that they count once."""


def _dtype_on(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Of slots for states of a type: small products in half precision are slow on a CPU."""
    return torch.float32 if device.type == "cpu" else dtype


def _flat(buffer: Tensor, span: int, used: int) -> Tensor:
    """(span * kv_heads, used, dim), a view."""
    return buffer[:span].flatten(0, 1)[:, :used]
