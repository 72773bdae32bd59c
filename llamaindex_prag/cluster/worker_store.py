"""The store of a worker: in memory, with what the driver sent along. The driver alone writes the store on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_backbone.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.adapter import Adapter, AdapterKey

SideEntries = dict[tuple[str, str], Any]
"""JSON data of side tables by (table, key)."""


class WorkerStore:
    """Holds the adapter that a recipe starts from, and the questions of the passages in progress.

    Args:
        model: The base model's fingerprint.
        start: Key and values of the recipe's start; None if it has none.
    """

    generation = 0

    def __init__(self, model: str, start: tuple[AdapterKey, Adapter] | None = None) -> None:
        self.model = model
        self._adapters = dict([start] if start else [])
        self._side: SideEntries = {}
        self.written: SideEntries = {}
        """Entries that were written since `begin`."""

    def begin(self, side: SideEntries) -> None:
        """Replace the side entries by those of other passages."""
        self._side, self.written = dict(side), {}

    def __contains__(self, key: object) -> bool:
        return key in self._adapters

    def keys(self) -> list[AdapterKey]:
        """Return the key of the recipe's start, if it has one."""
        return list(self._adapters)

    def get(self, key: AdapterKey) -> Adapter | None:
        """Return the recipe's start, or None."""
        return self._adapters.get(key)

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write the start's values into `out` and return its scale."""
        if (adapter := self._adapters.get(key)) is None:
            raise AdapterError("a worker trains adapters and holds none; read it from the driver's store")
        out[:] = adapter.buffer
        return adapter.scale

    def get_json(self, table: str, key: str) -> Any | None:
        """Return a side entry, or None."""
        return self._side.get((table, key))

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Keep a side entry for the driver."""
        self._side[table, key] = self.written[table, key] = value
