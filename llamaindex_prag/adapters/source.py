"""What is needed of a store, by those who read adapters: each protocol adds to the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.adapter import AdapterKey
    from llamaindex_prag.adapters.layout import Layout


class AdapterSource(Protocol):
    """Where a bank finds adapters: a store, or a few in memory."""

    @property
    def generation(self) -> int:
        """Grows whenever an adapter is removed or replaced."""

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write the values of an adapter into (layout.size,) and return its scale.

        Raises:
            AdapterError: If there is no such adapter, or it is damaged.
        """


@runtime_checkable
class BatchSource(AdapterSource, Protocol):
    """A source that reads several adapters faster than one after the other."""

    def read_many(self, keys: Sequence[AdapterKey], outs: Sequence[NDArray[np.float32]]) -> list[float]:
        """Write each adapter's values into (layout.size,), and return their scales."""


class ReadableStore(AdapterSource, Protocol):
    """What answering needs of a store."""

    @property
    def model(self) -> str:
        """The fingerprint of the model that the adapters are for."""

    def __contains__(self, key: AdapterKey) -> bool: ...


class MergeableStore(ReadableStore, Protocol):
    """What merging adapters for a server needs of a store."""

    def layout(self, key: AdapterKey) -> Layout | None:
        """Return the layout of an adapter, or None if there is none."""

    def digest(self, key: AdapterKey) -> str | None:
        """Return what differs for other values; None if there is no such adapter."""

    def keys(self) -> Sequence[AdapterKey]:
        """Return the keys of all adapters at this moment."""
