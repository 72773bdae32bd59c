"""Adapter slots on a model: activating documents is copying their factors, and nothing is built, loaded or deleted.

A slot holds a selection's adapters side by side, concatenated along the rank, layer by layer:

    A: (k * rank, in)      B': (k * rank, out), each adapter's rows already multiplied by its weight and scale
    y = W x + B A x

The base weights are never touched. A linear layer's `forward` is exchanged while a forward runs in which some row has
adapters, and only then: a model with no adapter active runs its own code. Rows of one batch may use different slots.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from llamaindex_prag.adapter import AdapterKey
from llamaindex_prag.layout import Layout
from llamaindex_prag.selection import Selection, orthogonalise
from llamaindex_prag.targets import target_layers
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.matrix_vector import linear, pays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel


class AdapterSource(Protocol):
    """Where a bank finds adapters: a store, or a few in memory."""

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write the values of an adapter into (layout.size,) and return its scale.

        Raises:
            AdapterError: If there is no such adapter, or it is damaged.
        """
        ...

    @property
    def generation(self) -> int:
        """Grows whenever an adapter is removed or replaced."""
        ...


@dataclass(slots=True)
class _Slot:
    values: Tensor
    """(max_adapters * layout.size,) in the model's dtype."""
    generation: int = -1
    factors: list[tuple[Tensor, Tensor]] | None = None
    """Of each target: `A` (k * rank, in) and `B'` (k * rank, out), views of `values`."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of the forward in progress that use one slot."""

    rows: slice | Tensor | None
    """None: all rows."""
    factors: list[tuple[Tensor, Tensor]]


class AdapterBank:
    """Applies stored adapters to one model: the engine's `AdapterBackend`.

    Args:
        model: The model that the engine owns.
        layout: Of every adapter in the source.
        source: Where adapters are read from.
        max_adapters: The most adapters that one call may use.
        slots: How many different selections one forward may use; the latest ones stay in memory. A slot is allocated
            when it is first needed, and never again.

    Raises:
        ConfigurationError: If the layout is not one of this model.
    """

    def __init__(
        self, model: PreTrainedModel, layout: Layout, source: AdapterSource, *, max_adapters: int = 8, slots: int = 16
    ) -> None:
        if max_adapters < 1 or slots < 1:
            raise ConfigurationError(f"max_adapters is {max_adapters}, slots is {slots}; at least 1 is needed of each")
        self.layout = layout
        self.max_adapters = max_adapters
        self._model = model
        self._source = source
        self._limit = slots
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._segments: list[_Segment] = []
        self._scratch = np.empty((max_adapters, layout.size), np.float32)
        self._staged = torch.empty(max_adapters * layout.size)
        layers = target_layers(model, layout)
        vector = pays(model.dtype, model.device)
        self._forwards = [(vars(layer), self._forward_of(i, layer, vector)) for i, layer in enumerate(layers)]

    def select(self, keys: Sequence[AdapterKey], **options: Any) -> Selection:
        """A selection of at most `max_adapters`; options are those of `Selection.of`.

        Raises:
            AdapterError: If there are more.
        """
        selection = Selection.of(keys, version=self._source.generation, **options)
        if len(selection) > self.max_adapters:
            raise AdapterError(
                f"{len(selection)} adapters were selected; the bank has room for {self.max_adapters} in a call. "
                "Retrieve fewer documents (similarity_top_k), or make the bank larger (max_adapters)."
            )
        return selection

    @contextlib.contextmanager
    def activate(self, rows: Sequence[Any]) -> Iterator[None]:
        """One forward in which batch row `i` runs with `rows[i]`; see `AdapterBackend`."""
        wanted = {row.cache_key: row for row in rows if row is not None}
        if not wanted:
            yield
            return
        if len(wanted) > self._limit:
            raise AdapterError(f"{len(wanted)} different selections in one forward; the bank has {self._limit} slots")
        for row in wanted.values():
            self._load(row, keep=wanted)
        self._segments = self._segmented([None if row is None else row.cache_key for row in rows])
        for attributes, forward in self._forwards:
            attributes["forward"] = forward
        try:
            yield
        finally:
            for attributes, _ in self._forwards:
                del attributes["forward"]
            self._segments = []

    def clear(self) -> None:
        """Forget what the slots hold; their memory stays allocated."""
        for slot in self._slots.values():
            slot.generation, slot.factors = -1, None

    def _load(self, selection: Selection, keep: dict[Hashable, Any]) -> None:
        """Make sure that a slot holds the selection."""
        key, generation = selection.cache_key, self._source.generation
        slot = self._slots.get(key)
        if slot is not None and slot.generation == generation:
            self._slots.move_to_end(key)
            return
        if slot is None:
            slot = self._free_slot(keep)
        slot.generation = -1  # whatever happens now, half a selection is never taken for a whole one
        self._fill(slot, selection)
        slot.generation = generation
        self._slots[key] = slot
        self._slots.move_to_end(key)

    def _free_slot(self, keep: dict[Hashable, Any]) -> _Slot:
        if len(self._slots) < self._limit:
            size = self.max_adapters * self.layout.size
            return _Slot(torch.empty(size, dtype=self._model.dtype, device=self._model.device))
        oldest = next(key for key in self._slots if key not in keep)
        return self._slots.pop(oldest)

    def _fill(self, slot: _Slot, selection: Selection) -> None:
        layout, k = self.layout, len(selection)
        buffers = [self._scratch[j] for j in range(k)]
        for key, weight, buffer in zip(selection.keys, selection.weights, buffers, strict=True):
            scale = self._source.read_into(key, buffer)
            buffer[layout.a_size :] *= np.float32(weight * scale)
        if selection.orthogonal and k > 1:
            orthogonalise(layout, buffers)
        used = k * layout.size
        if k == 1:
            slot.values[:used].copy_(torch.from_numpy(buffers[0]))
        else:
            staged = self._staged.numpy()
            for offset, size in _chunks(layout):
                for j, buffer in enumerate(buffers):
                    start = k * offset + j * size
                    staged[start : start + size] = buffer[offset : offset + size]
            slot.values[:used].copy_(self._staged[:used])
        slot.factors = [
            (
                _rows(slot.values, k * a, k * layout.rank, t.inputs),
                _rows(slot.values, k * b, k * layout.rank, t.outputs),
            )
            for t, a, b in zip(layout.targets, layout.a_offsets, layout.b_offsets, strict=True)
        ]

    def _segmented(self, keys: Sequence[Hashable | None]) -> list[_Segment]:
        distinct = set(keys)
        if len(distinct) == 1:
            return [_Segment(None, self._factors(keys[0]))]
        segments = []
        for key in distinct - {None}:
            rows = [i for i, k in enumerate(keys) if k == key]
            together = rows[-1] - rows[0] + 1 == len(rows)
            where = slice(rows[0], rows[-1] + 1) if together else torch.tensor(rows, device=self._model.device)
            segments.append(_Segment(where, self._factors(key)))
        return segments

    def _factors(self, key: Hashable | None) -> list[tuple[Tensor, Tensor]]:
        factors = self._slots[key].factors
        assert factors is not None
        return factors

    def _forward_of(self, index: int, layer: nn.Linear, vector: bool) -> Callable[[Tensor], Tensor]:
        base = linear if vector else functional.linear

        def forward(states: Tensor) -> Tensor:
            out = base(states, layer.weight, layer.bias)
            for segment in self._segments:
                a, b = segment.factors[index]
                if segment.rows is None:
                    flat = functional.linear(states.reshape(-1, states.shape[-1]), a)
                    return torch.addmm(out.view(-1, out.shape[-1]), flat, b).view(out.shape)
                out[segment.rows] += functional.linear(states[segment.rows], a) @ b
            return out

        return forward

    def __repr__(self) -> str:
        size = sum(slot.values.nbytes for slot in self._slots.values())
        return (
            f"AdapterBank({self.layout!r}, {len(self._slots)} of {self._limit} slots in {size / 2**20:.0f} MiB, "
            f"at most {self.max_adapters} adapters a call)"
        )


def _rows(values: Tensor, start: int, rows: int, width: int) -> Tensor:
    return values[start : start + rows * width].view(rows, width)


def _chunks(layout: Layout) -> list[tuple[int, int]]:
    """(offset, size) of every factor."""
    a = [(o, layout.rank * t.inputs) for o, t in zip(layout.a_offsets, layout.targets, strict=True)]
    return a + [(o, layout.rank * t.outputs) for o, t in zip(layout.b_offsets, layout.targets, strict=True)]
