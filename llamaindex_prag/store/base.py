"""What any adapter store offers, and what it reports.

    put --------> value (the adapter), record (how it was made, as JSON)     by AdapterKey
    put_json ---> side tables, such as an augmenter's results                by (table, key)
    own --------> which documents use which text                             by document id
    hold -------> which indexes hold which document                          by document id

The rest of the package depends on `AdapterStore` only; `LMDBStore` is the one that is shipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.layout import Layout


@runtime_checkable
class AdapterStore(Protocol):
    """Adapters by what they were made of."""

    @property
    def generation(self) -> int:
        """Rises whenever an adapter is removed or replaced: copies made under a lower one may be stale."""
        ...

    def put(self, key: AdapterKey, adapter: Adapter, record: dict[str, Any], owners: Iterable[str] = ()) -> None:
        """Keep an adapter; once this returns, it survives the death of the process.

        Args:
            key: What it was made of.
            adapter: Its values.
            record: How it was made; plain JSON data.
            owners: Ids of documents that contain the text.
        """
        ...

    def get(self, key: AdapterKey) -> Adapter | None:
        """An adapter with a buffer of its own, or None."""
        ...

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write an adapter's values into `out` and return its scale."""
        ...

    def layout(self, key: AdapterKey) -> Layout | None:
        """The layout of a stored adapter, without reading its values."""
        ...

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """How an adapter was made, or None."""
        ...

    def __contains__(self, key: object) -> bool: ...

    def __len__(self) -> int: ...

    def keys(self) -> list[AdapterKey]:
        """The keys of all adapters at this moment."""
        ...

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Keep plain data. A key that is a text hash, or starts with one and `/`, is removed with that text."""
        ...

    def get_json(self, table: str, key: str) -> Any | None:
        """Plain data kept by `put_json`, or None."""
        ...

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return those that nobody owns any more."""
        ...

    def own_also(self, document_id: str, text_hashes: Iterable[str]) -> None:
        """Add to the list of texts that a document uses."""
        ...

    def replace_document(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """As `own`, but what nobody owns any more is removed, in one step."""
        ...

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Note that an index holds documents, so that they stay when another one deletes them."""
        ...

    def let_go(
        self, indexes: Collection[str], document_id: str, keep: Iterable[str] = (), *, purge: bool = True
    ) -> list[str]:
        """Take from a document the texts that indexes no longer have; return those that nobody owns any more."""
        ...

    def documents(self) -> list[StoredDocument]:
        """All documents, with their texts and the indexes that hold them."""
        ...

    def owners(self, text_hash: str) -> list[str]:
        """Ids of the documents that use a text."""
        ...

    def texts(self, document_id: str) -> list[str]:
        """Hashes of the texts that a document uses."""
        ...

    def remove(self, what: str | AdapterKey) -> int:
        """Remove a text (by its hash) or one adapter, with what was kept beside it; return the adapters removed."""
        ...

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document; remove, and return, the texts that nobody owns any more."""
        ...

    def close(self) -> None:
        """Let go of the files; repeated calls do nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds."""

    path: str
    model: str
    """Fingerprint of the model that all its adapters are for."""
    encoding: str
    """Of adapters that are put from now on."""
    adapters: int
    documents: int
    """That use texts of the store, or are held by an index."""
    side_entries: int
    """Entries of the side tables (`put_json`)."""
    unowned_texts: int
    """Texts whose last owner is gone; `gc` removes them."""
    generation: int
    value_bytes: int
    """Space of the adapters' values, whole pages."""
    file_bytes: int
    """Size of the data file, free pages included."""
    map_bytes: int
    """Size up to which the file can grow before the map is enlarged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """One adapter of a store, without its values."""

    text: str
    """Hash of the text, by which it can be exported and removed."""
    documents: Sequence[str]
    """Ids of the documents that use the text; empty if there is none."""
    recipe: str
    """Name of the recipe; the first digits of its key, where the record does not name it."""
    bytes: int
    """Size of the encoded values."""
    created: str | None
    """Time in UTC, ISO 8601; None if the record does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """What a store knows of a document."""

    id: str
    texts: Sequence[str]
    """Hashes of the texts that it uses."""
    indexes: Sequence[str]
    """Ids of the indexes that hold it; empty if none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a full check found."""

    checked: int
    damaged: Sequence[tuple[AdapterKey, str]]
    """Each damaged adapter with the reason."""

    @property
    def ok(self) -> bool:
        """Whether every adapter is sound."""
        return not self.damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What a collection did."""

    removed_texts: Sequence[str]
    removed_adapters: int
    bytes_before: int
    bytes_after: int
    compacted: bool
    reason: str
    """Why the file was not made smaller; empty if it was."""
