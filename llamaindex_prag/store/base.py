"""The interface of an adapter store, and its reports.

    put --------> value (the adapter), record (how it was trained, as JSON)  by AdapterKey
    put_json ---> side tables, such as an augmenter's results                by (table, key)
    own --------> which documents use which text                             by document id
    hold -------> which indexes hold which document                          by document id

The rest of the package depends on `AdapterStore` only; `LMDBStore` and `ObjectStore` implement it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llamaindex_prag.adapters.adapter import LARGEST_VALUE, Adapter, AdapterKey
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.layout import Layout


@runtime_checkable
class AdapterStore(Protocol):
    """Adapters, addressed by what they were trained on: the text, the model and the recipe.

    `LMDBStore` keeps them in a folder, `ObjectStore` in an object store that many hosts share. A model that only
    answers needs no more than `model`, `generation`, `read_into` and `in`.
    """

    @property
    def generation(self) -> int:
        """A counter that rises whenever an adapter is removed or replaced; copies from a lower one may be stale."""
        ...

    def put(self, key: AdapterKey, adapter: Adapter, record: dict[str, Any], owners: Iterable[str] = ()) -> None:
        """Store an adapter durably: once this returns, it survives the death of the process.

        Args:
            key: What the adapter was trained on.
            adapter: Its values.
            record: How it was trained, as plain JSON data.
            owners: Ids of documents that contain the text.
        """
        ...

    def get(self, key: AdapterKey) -> Adapter | None:
        """Return an adapter with a newly allocated buffer, or None."""
        ...

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write an adapter's values into `out` and return its scale."""
        ...

    def layout(self, key: AdapterKey) -> Layout | None:
        """Return the layout of a stored adapter without reading its values, or None."""
        ...

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """Return how an adapter was trained, or None."""
        ...

    def __contains__(self, key: object) -> bool: ...

    def __len__(self) -> int: ...

    def keys(self) -> list[AdapterKey]:
        """Return the keys of all adapters currently in the store."""
        ...

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Store JSON data. A key that is a text hash, or starts with one and `/`, is removed with that text."""
        ...

    def get_json(self, table: str, key: str) -> Any | None:
        """Return data stored by `put_json`, or None."""
        ...

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return those that no document uses any more."""
        ...

    def own_also(self, document_id: str, text_hashes: Iterable[str]) -> None:
        """Add to the list of texts that a document uses."""
        ...

    def replace_document(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace a document's texts like `own`, and remove those that no document uses any more, atomically."""
        ...

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Record that an index holds documents, so that they stay when another index deletes them."""
        ...

    def let_go(
        self, indexes: Collection[str], document_id: str, keep: Iterable[str] = (), *, purge: bool = True
    ) -> list[str]:
        """Remove from a document the texts that indexes no longer have; return those that no document uses any more."""
        ...

    def documents(self) -> list[StoredDocument]:
        """Return all documents, with their texts and the indexes that hold them."""
        ...

    def owners(self, text_hash: str) -> list[str]:
        """Return the ids of the documents that use a text."""
        ...

    def texts(self, document_id: str) -> list[str]:
        """Return the hashes of the texts that a document uses."""
        ...

    def remove(self, what: str | AdapterKey) -> int:
        """Remove a text (by its hash) or one adapter, with its side entries; return how many adapters were removed."""
        ...

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document; remove and return the texts that no document uses any more."""
        ...

    def close(self) -> None:
        """Close the files; idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Statistics of a store."""

    path: str
    model: str
    """Fingerprint of the base model of all adapters."""
    encoding: str
    """Encoding of adapters that are stored from now on."""
    adapters: int
    documents: int
    """Number of documents that use texts of the store or are held by an index."""
    side_entries: int
    """Number of entries in the side tables (`put_json`)."""
    unowned_texts: int
    """Number of texts whose last owner is gone; `gc` removes them."""
    generation: int
    value_bytes: int
    """Space that the adapters' values take, in whole pages."""
    file_bytes: int
    """Size of the data file, including free pages."""
    map_bytes: int
    """Size up to which the file can grow before the map must be enlarged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """A stored adapter, without its values."""

    text: str
    """Hash of the text, for exporting and removing the adapter."""
    documents: Sequence[str]
    """Ids of the documents that use the text; may be empty."""
    recipe: str
    """Name of the recipe, or the first digits of its key if the record does not name it."""
    bytes: int
    """Size of the encoded values."""
    created: str | None
    """Creation time in UTC, ISO 8601; None if the record does not say."""

    @classmethod
    def of(
        cls, text: str, recipe: str, size: int, record: Mapping[str, Any], documents: Iterable[str]
    ) -> StoredAdapter:
        """Describe an adapter by text, recipe key, size, record and documents."""
        made = record.get("recipe")
        name = str(made["name"]) if isinstance(made, dict) and "name" in made else recipe[:12]
        return cls(text=text, documents=tuple(documents), recipe=name, bytes=size, created=record.get("created"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document as a store knows it."""

    id: str
    texts: Sequence[str]
    """Hashes of the texts that the document uses."""
    indexes: Sequence[str]
    """Ids of the indexes that hold the document; empty if none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """Result of a full check."""

    checked: int
    damaged: Sequence[tuple[AdapterKey, str]]
    """Each damaged adapter, with the reason."""

    @property
    def ok(self) -> bool:
        """Whether no adapter is damaged."""
        return not self.damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """Result of a garbage collection."""

    removed_texts: Sequence[str]
    removed_adapters: int
    bytes_before: int
    bytes_after: int
    compacted: bool
    reason: str
    """Why the file was not compacted; empty if it was."""

    @classmethod
    def of_dry_run(cls, texts: Sequence[str], adapters: int, size: int) -> GcReport:
        """Return the report of a collection that would remove this and changed nothing."""
        return cls(
            removed_texts=texts,
            removed_adapters=adapters,
            bytes_before=size,
            bytes_after=size,
            compacted=False,
            reason="nothing was changed: this only reports what would be removed",
        )


def check_storable(key: AdapterKey, adapter: Adapter) -> None:
    """Check that training could have produced an adapter's values, and that it has not diverged.

    Raises:
        AdapterError: If values are not finite, or the buffer does not fit its layout.
        AdapterRefusedError: If a value is too large.
    """
    adapter.check()
    largest = max(abs(float(adapter.buffer.max())), abs(float(adapter.buffer.min())))
    if largest > LARGEST_VALUE:
        raise AdapterRefusedError(
            f"the adapter of {key.text[:12]} has a value of {largest:g}; above {LARGEST_VALUE:g}, training has "
            "diverged. Lower the recipe's learning_rate."
        )


def damaged(key: AdapterKey, error: AdapterDamagedError) -> AdapterDamagedError:
    """Return an error that says which adapter is damaged."""
    return AdapterDamagedError(f"the adapter of text {key.text[:12]} and recipe {key.recipe[:12]} is damaged: {error}")
