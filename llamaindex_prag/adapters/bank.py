"""Adapter slots on a model: activating documents copies their factors; no module is built, loaded or deleted.

A slot is a matrix (adapters, layout.size). The adapters of a selection are read into it as the store holds them, and
each `B'` is multiplied by the adapter's weight and scale. A layer's factors are views of the slot:

    A: (k, rank, in)      B': (k, rank, out)      y = W x + sum_j B_j A_j x

The base weights never change. The `forward` of a linear layer is replaced only during a forward pass in which at least
one sequence has adapters; without active adapters the model runs its own code. Sequences of one batch, or tokens of one
packed sequence, may use different slots.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, weigh
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.patched_forwards import patched_forwards
from llamaindex_prag.adapters.source import AdapterSource, BatchSource
from llamaindex_prag.adapters.targets import target_layers
from rag_backbone.engine.adapters import key_of
from rag_backbone.engine.validation import check_device
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel


Factors = list[tuple["Tensor", "Tensor"]]
"""`A` (k, rank, in) and `B'` (k, rank, out) of each target."""


class _Slot:
    """Memory for the adapters of one selection, allocated once."""

    def __init__(self, layout: Layout, adapters: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values = torch.empty(adapters, layout.size, dtype=dtype, device=device)
        self.generation = -1
        """The store's generation when the slot was filled; -1: the slot is empty."""
        self.used = 0
        self._layout = layout
        self._views: dict[int, Factors] = {}

    @property
    def factors(self) -> Factors:
        """Views of the adapters in use, cached by their number."""
        if self.used not in self._views:
            self._views[self.used] = [
                (self._part(a, t.inputs), self._part(b, t.outputs))
                for t, a, b in zip(self._layout.targets, self._layout.a_offsets, self._layout.b_offsets, strict=True)
            ]
        return self._views[self.used]

    def _part(self, offset: int, width: int) -> Tensor:
        rank = self._layout.rank
        return self.values[: self.used, offset : offset + rank * width].view(self.used, rank, width)


@dataclass(frozen=True, slots=True)
class _Segment:
    """The part of the current forward pass that uses one slot."""

    where: tuple[slice | Tensor, ...] | None
    """Index of its sequences, or of its tokens in the only sequence; None: everything."""
    factors: Factors


class AdapterBank:
    """Applies stored adapters to one model; implements the engine's `AdapterBackend`.

    Args:
        model: The model that the engine owns.
        layout: The layout of every adapter in the source.
        source: Where adapters are read from.
        max_adapters: Maximum number of adapters per call.
        slots: Maximum number of different selections in one forward pass; the most recently used ones stay in memory.
            Each slot is allocated on first use, and then reused.

    Raises:
        ConfigurationError: If the layout does not fit the model, or a limit is below 1.
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
        self._device = model.device
        self._on_cpu = model.device.type == "cpu"
        # float32 on CPU, whatever the model's dtype: small products are slow there in half precision.
        self._dtype = torch.float32 if self._on_cpu else model.dtype
        self._scratch = None if self._on_cpu else torch.empty(max_adapters, layout.size)
        layers = target_layers(model, layout)
        self._forwards = [(vars(layer), self._forward_of(i, layer)) for i, layer in enumerate(layers)]

    def select(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        """Select at most `max_adapters` adapters; the options are those of `ActiveAdapters.of`.

        Raises:
            AdapterError: If there are more.
        """
        selection = ActiveAdapters.of(keys, version=self._source.generation, **options)
        if len(selection) > self.max_adapters:
            raise AdapterError(
                f"{len(selection)} adapters were selected; the bank has room for {self.max_adapters} in a call. "
                "Retrieve fewer documents (similarity_top_k), or make the bank larger (max_adapters)."
            )
        return selection

    def values(self, keys: Sequence[AdapterKey]) -> NDArray[np.float32]:
        """Return (k, layout.size): the adapters as stored or translated, without their scales.

        Raises:
            AdapterMissingError: If an adapter is missing.
        """
        found = np.empty((len(keys), self.layout.size), np.float32)
        self._read(keys, list(found))
        return found

    def activate(self, rows: Sequence[Any]) -> AbstractContextManager[None]:
        """Run one forward pass with `rows[i]` on sequence `i` of the batch; see `AdapterBackend`."""
        return self._active(rows, None)

    def activate_packed(self, rows: Sequence[Any], lengths: Sequence[int]) -> AbstractContextManager[None]:
        """Run one forward pass of a packed sequence, `lengths[i]` tokens with `rows[i]` each; see `PackedBackend`."""
        return self._active(rows, lengths)

    @contextlib.contextmanager
    def _active(self, rows: Sequence[Any], lengths: Sequence[int] | None) -> Iterator[None]:
        wanted = {row.cache_key: row for row in rows if row is not None}
        if not wanted:
            yield
            return
        check_device(self._model, self._device)
        if len(wanted) > self._limit:
            raise AdapterError(f"{len(wanted)} different selections in one forward; the bank has {self._limit} slots")
        for row in wanted.values():
            self._load(row, keep=wanted)
        self._segments = self._segmented([key_of(row) for row in rows], lengths)
        try:
            with patched_forwards(self._forwards):
                yield
        finally:
            self._segments = []

    def clear(self) -> None:
        """Mark all slots as empty; their memory stays allocated."""
        for slot in self._slots.values():
            slot.generation = -1

    def _load(self, selection: ActiveAdapters, keep: dict[Hashable, Any]) -> None:
        """Make sure that a slot holds the selection."""
        key, generation = selection.cache_key, self._source.generation
        slot = self._slots.get(key)
        if slot is not None and slot.generation == generation:
            self._slots.move_to_end(key)
            return
        if slot is None:
            slot = self._free_slot(keep)
        slot.generation = -1  # if filling fails, a half-written selection must not count as loaded
        self._fill(slot, selection)
        slot.generation = generation
        self._slots[key] = slot
        self._slots.move_to_end(key)

    def _free_slot(self, keep: dict[Hashable, Any]) -> _Slot:
        if len(self._slots) < self._limit:
            return self._new_slot()
        oldest = next(key for key in self._slots if key not in keep)
        return self._slots.pop(oldest)

    def _new_slot(self) -> _Slot:
        try:
            return _Slot(self.layout, self.max_adapters, self._dtype, self._device)
        except RuntimeError as error:  # as PyTorch reports a lack of memory
            size = self.max_adapters * self.layout.size * self._dtype.itemsize / 2**30
            raise AdapterError(
                f"there is no memory for another set of at most {self.max_adapters} adapters, {size:,.1f} GiB on "
                f"{self._device}; allow fewer adapters per call (max_adapters), or fewer sets (slots, now "
                f"{len(self._slots)} of {self._limit})"
            ) from error

    def _fill(self, slot: _Slot, selection: ActiveAdapters) -> None:
        layout, k = self.layout, len(selection)
        rows = slot.values if self._scratch is None else self._scratch
        buffers = list(rows[:k].numpy())
        scales = self._read(selection.keys, buffers)
        weigh(layout, selection, buffers, scales)
        if self._scratch is not None:
            slot.values[:k].copy_(self._scratch[:k])
        slot.used = k

    def _read(self, keys: Sequence[AdapterKey], buffers: Sequence[NDArray[np.float32]]) -> list[float]:
        """Fill the buffers and return the scales."""
        if isinstance(self._source, BatchSource):
            return self._source.read_many(keys, buffers)
        return [self._source.read_into(key, b) for key, b in zip(keys, buffers, strict=True)]

    def _segmented(self, keys: Sequence[Hashable], lengths: Sequence[int] | None) -> list[_Segment]:
        """Return what uses each slot: sequences of the batch, or tokens of the packed sequence if there are lengths."""
        distinct = set(keys)
        if len(distinct) == 1:
            return [_Segment(None, self._factors(keys[0]))]
        if lengths is not None:
            keys = [key for key, n in zip(keys, lengths, strict=True) for _ in range(n)]
        before = () if lengths is None else (slice(None),)
        segments = []
        for key in distinct - {None}:
            at = [i for i, k in enumerate(keys) if k == key]
            together = at[-1] - at[0] + 1 == len(at)
            where = slice(at[0], at[-1] + 1) if together else torch.tensor(at, device=self._model.device)
            segments.append(_Segment((*before, where), self._factors(key)))
        return segments

    def _factors(self, key: Hashable) -> Factors:
        return self._slots[key].factors

    def _forward_of(self, index: int, layer: nn.Linear) -> Callable[[Tensor], Tensor]:
        def forward(states: Tensor) -> Tensor:
            out = functional.linear(states, layer.weight, layer.bias)
            for segment in self._segments:
                where = segment.where
                if where is None:
                    return _updated(out, states, *segment.factors[index])
                out[where] = _updated(out[where], states[where], *segment.factors[index])
            return out

        return forward

    def __repr__(self) -> str:
        size = sum(slot.values.nbytes for slot in self._slots.values())
        return (
            f"AdapterBank({self.layout!r}, {len(self._slots)} of {self._limit} slots in {size / 2**20:.0f} MiB, "
            f"at most {self.max_adapters} adapters a call)"
        )


def _updated(out: Tensor, states: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return `out + sum_j (states A_j^T) B'_j`, computed in the factors' dtype."""
    flat = states.reshape(-1, states.shape[-1]).to(a.dtype)
    inner = torch.bmm(flat.expand(a.shape[0], -1, -1), a.transpose(1, 2))  # (k, tokens, rank)
    summed = torch.addbmm(out.reshape(-1, out.shape[-1]).to(b.dtype), inner, b)
    return summed.to(out.dtype).view(out.shape)
