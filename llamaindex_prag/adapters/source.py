"""Protocols for reading adapters from a store; each one extends the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.adapter import AdapterKey
    from llamaindex_prag.adapters.layout import Layout


class AdapterSource(Protocol):
    """Source that a bank reads adapters from: a store, or adapters in memory."""

    @property
    def generation(self) -> int:
        """A counter that grows whenever an adapter is removed or replaced."""

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write the values of an adapter into `out` (layout.size,) and return its scale.

        Raises:
            AdapterError: If the adapter is missing or damaged.
        """


@runtime_checkable
class BatchSource(AdapterSource, Protocol):
    """A source that reads several adapters faster than one by one."""

    def read_many(self, keys: Sequence[AdapterKey], outs: Sequence[NDArray[np.float32]]) -> list[float]:
        """Write each adapter's values into its `outs` (layout.size,) and return their scales."""


class ReadableStore(AdapterSource, Protocol):
    """The part of a store that answering needs."""

    @property
    def model(self) -> str:
        """The fingerprint of the adapters' base model."""

    def __contains__(self, key: AdapterKey) -> bool: ...


class MergeableStore(ReadableStore, Protocol):
    """The part of a store that merging adapters for a server needs."""

    def layout(self, key: AdapterKey) -> Layout | None:
        """Return the layout of an adapter, or None if there is none."""

    def digest(self, key: AdapterKey) -> str | None:
        """Return an adapter's content hash, which changes with its values, or None if there is no such adapter."""

    def keys(self) -> Sequence[AdapterKey]:
        """Return the keys of all adapters currently in the store."""
