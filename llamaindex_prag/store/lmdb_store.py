"""Adapters in one memory-mapped LMDB folder: many readers, one writer at a time, in any number of processes.

    values   text, recipe -> the encoded adapter          layouts  digest -> layout
    records  text, recipe -> how it was trained           recipes  recipe -> the layout of its first adapter
    side     key, table   -> plain data                   meta     format, generation
    and which documents use which text: see `ownership`

Every change is one transaction that is on disk when the call returns; if the process is killed, the store has the state
before or after it. Removed bytes stay in the file, unreachable, until other values or `gc` overwrite them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, StoreError
from llamaindex_prag.store import entries, maintenance, ownership
from llamaindex_prag.store.base import (
    GcReport,
    StoredAdapter,
    StoredDocument,
    StoreStats,
    VerifyReport,
    check_storable,
    damaged,
)
from llamaindex_prag.store.base_store import BaseStore, T
from llamaindex_prag.store.datafile import is_new
from llamaindex_prag.store.encoding import Encoding, Header, checked_encoding, decode_into, encode, read_header
from llamaindex_prag.store.environment import Rows, SharedEnvironment
from llamaindex_prag.store.folders import sync
from llamaindex_prag.store.registry import acquire, release
from rag_backbone.errors import ConfigurationError

_HASH = 32


class LMDBStore(BaseStore):
    """The included `AdapterStore`.

    Args:
        path: The folder, created if it does not exist. It may be opened several times, also in one process.
        model: Fingerprint of the adapters' base model. None: use that of an existing store.
        encoding: Encoding of adapters that are stored from now on; existing ones keep theirs.
        map_size: Initial map size in bytes. The map is enlarged when needed and takes no disk space.
        readonly: Never write. Works on read-only media too. There, and if this user may not write the lock file,
            writers cannot see this reader, so none must run at the same time.

    Raises:
        StoreError: If the path is not a store, is truncated, belongs to another model or a newer version, or is not
            writable.

    Example:
        >>> with LMDBStore(folder, model=key.model) as store:
        ...     store.put(key, adapter, {"steps": 40}, owners=["report.pdf"])
        ...     store.get(key)
        Adapter(Layout(90 layers, rank 8, 1,566,720 values), scale 2)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None,
        encoding: Encoding = "bfloat16",
        map_size: int = 1 << 30,
        readonly: bool = False,
    ) -> None:
        self.path = Path(path)
        self.readonly = readonly
        self.encoding = checked_encoding(encoding)
        if map_size < 1 << 20:
            raise ConfigurationError(f"map_size is {map_size}; at least 1048576 (1 MiB) is needed")
        new = is_new(self.path, readonly=readonly)
        if new and not model:
            raise StoreError(f"there is no store at {self.path}; give the model's fingerprint to create one")
        self._layouts: dict[str, Layout] = {}
        self._env = acquire(self.path, entries.TABLES, entries.check_format, map_size, readonly=readonly)
        try:
            self.model = self._opened_for(model)
            if new:
                sync(self.path)
                sync(self.path.absolute().parent)
        except BaseException:
            self.close()
            raise

    @property
    def generation(self) -> int:
        """A counter that rises whenever any process removes or replaces an adapter; takes microseconds to read."""
        with self._live().read() as rows:
            return entries.generation(rows)

    def put(self, key: AdapterKey, adapter: Adapter, record: dict[str, Any], owners: Iterable[str] = ()) -> None:
        """Store an adapter durably: once this returns, it survives the death of the process.

        Args:
            key: What the adapter was trained on.
            adapter: Its values.
            record: How it was trained, as plain JSON data.
            owners: Ids of documents that contain the text, added to the known ones.

        Raises:
            AdapterRefusedError: If it is for another model, its layout differs from that of the recipe's other
                adapters, a value has diverged, or the record is not JSON data.
            AdapterError: If values are not finite, or the buffer does not fit its layout.
            StoreFullError: If the disk is full.
        """
        name, owners = self._name(key), tuple(owners)
        check_storable(key, adapter)
        value, row = encode(adapter, self.encoding), entries.as_json(record)
        layout = adapter.layout

        def change(rows: Rows) -> None:
            entries.settle_layout(rows, name[_HASH:], layout)
            if (old := rows.get("values", name)) != value:
                rows.put("values", name, value)
                if old is not None:
                    entries.count_change(rows)
            rows.put("records", name, row)
            rows.delete("unowned", name[:_HASH])
            for document_id in owners:
                ownership.own_also(rows, document_id, [name[:_HASH]])

        self._writable().write(change)

    def get(self, key: AdapterKey) -> Adapter | None:
        """Return an adapter with a newly allocated buffer, or None.

        Raises:
            AdapterDamagedError: If the stored bytes differ from what was written.
        """
        name = self._name(key)
        with self._live().read() as rows:
            value = rows.get("values", name)
            if value is None:
                return None
            try:
                header = read_header(value)
                layout = self._layout_of(rows, header)
                out = np.empty(layout.size, np.float32)
                decode_into(value, out)
            except AdapterDamagedError as error:
                raise damaged(key, error) from error
        return Adapter(layout, out, header.scale)

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write an adapter's values into `out` and return its scale; allocates almost nothing.

        Args:
            key: The adapter's key.
            out: (layout.size,) float32, contiguous.

        Raises:
            AdapterMissingError: If there is no adapter with this key.
            AdapterDamagedError: If the stored bytes differ from what was written.
        """
        name = self._name(key)
        with self._live().read() as rows:
            value = rows.get("values", name)
            if value is None:
                raise self._missing(key)
            try:
                return decode_into(value, out).scale
            except AdapterDamagedError as error:
                raise damaged(key, error) from error

    def digest(self, key: AdapterKey) -> str | None:
        """Return the SHA-256 of an adapter as stored, which depends on values, scale and encoding, or None."""
        name = self._name(key)
        with self._live().read() as rows:
            value = rows.get("values", name)
            return None if value is None else hashlib.sha256(value).hexdigest()

    def layout(self, key: AdapterKey) -> Layout | None:
        """Return the layout of a stored adapter without reading its values, or None."""
        name = self._name(key)
        with self._live().read() as rows:
            value = rows.get("values", name)
            return None if value is None else self._layout_of(rows, read_header(value))

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """Return how an adapter was trained, or None."""
        name = self._name(key)
        with self._live().read() as rows:
            row = rows.get("records", name)
            return None if row is None else entries.from_json(row)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, AdapterKey) or key.model != self.model:
            return False
        with self._live().read() as rows:
            return rows.get("values", self._name(key)) is not None

    def __len__(self) -> int:
        with self._live().read() as rows:
            return rows.stat("values")["entries"]

    def keys(self) -> list[AdapterKey]:
        """Return the keys of all adapters currently in the store, sorted by text."""
        with self._live().read() as rows:
            names = rows.keys("values")
        return [AdapterKey(self.model, name[_HASH:].hex(), name[:_HASH].hex()) for name in names]

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Store JSON data, such as an augmenter's results.

        Args:
            table: Any name.
            key: Any name; one that is a text hash, or starts with a text hash and `/`, is removed with that text.
            value: Plain JSON data.
        """
        name, row = entries.side_name(table, key), entries.as_json(value)
        self._writable().write(lambda rows: rows.put("side", name, row))

    def get_json(self, table: str, key: str) -> Any | None:
        """Return data stored by `put_json`, or None."""
        name = entries.side_name(table, key)
        with self._live().read() as rows:
            row = rows.get("side", name)
            return None if row is None else entries.from_json(row)

    def owners(self, text_hash: str) -> list[str]:
        """Return the ids of the documents that use a text."""
        text = entries.hash_bytes(text_hash)
        with self._live().read() as rows:
            return ownership.owners_of(rows, text)

    def texts(self, document_id: str) -> list[str]:
        """Return the hashes of the texts that a document uses."""
        with self._live().read() as rows:
            return [text.hex() for text in ownership.texts_of(rows, document_id)]

    def documents(self) -> list[StoredDocument]:
        """Return all documents, sorted by id, with their texts and the indexes that hold them."""
        with self._live().read() as rows:
            return sorted(ownership.documents(rows), key=lambda document: document.id)

    def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove the texts whose last owner is gone, and return free space to the disk.

        Returning space rewrites the file; it is skipped (see `GcReport.reason`) while another process has it open.

        Args:
            dry_run: Only report what would be removed.
        """
        return maintenance.to_collect(self._live()) if dry_run else maintenance.collect(self._writable())

    def described(self) -> dict[str, Any]:
        """Return the arguments that open this store again, except for the model's fingerprint."""
        return {"path": str(self.path.resolve()), "encoding": self.encoding, "readonly": self.readonly}

    def stats(self) -> StoreStats:
        """Return the store's statistics."""
        return maintenance.measure(self._live(), self.model, self.encoding)

    def adapters(self) -> list[StoredAdapter]:
        """List the adapters with their documents, recipes and sizes."""
        return maintenance.listed(self._live())

    def verify(self, progress: bool = False) -> VerifyReport:
        """Read and check every adapter: checksum, size, finite values, layout, record.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        return maintenance.verify(self, progress=progress)

    def close(self) -> None:
        """Close the files; idempotent."""
        if not self._closed:
            self._closed = True
            release(self._env)

    @property
    def _where(self) -> Path:
        return self.path

    def _live(self) -> SharedEnvironment:
        self._refuse_closed()
        return self._env

    def _writable(self) -> SharedEnvironment:
        self._refuse_readonly()
        return self._live()

    def _change(self, build: Callable[[entries.RowsChange], T]) -> T:
        return self._writable().write(lambda rows: build(entries.RowsChange(rows)))

    def _may_know(self, document_id: str) -> bool:
        with self._live().read() as rows:
            return ownership.is_known(rows, document_id)

    def _may_lack(self, index: str, document_ids: Collection[str]) -> bool:
        with self._writable().read() as rows:  # does not wait for another process that writes
            return not all(ownership.is_held(rows, document_id, index) for document_id in document_ids)

    def _opened_for(self, model: str | None) -> str:
        with self._env.read() as rows:
            row = rows.get("meta", b"format")
            found = None if row is None else str(entries.from_json(row)["model"])
        if found is None:
            if not model or self.readonly:
                raise StoreError(f"the store {self.path} is empty and has no model yet; create it with model=...")
            self._env.write(lambda rows: entries.describe(rows, model))
            return self._opened_for(model)
        self._refuse_unless_for(model, found)
        return found

    def _layout_of(self, rows: Rows, header: Header) -> Layout:
        layout = self._layouts.get(header.layout)
        if layout is None:
            layout = self._layouts[header.layout] = entries.read_layout(rows, header.layout)
        if (layout.size, layout.a_size) != (header.size, header.a_size):
            raise AdapterDamagedError(f"it has {header.size} values, its layout {layout.size}")
        return layout
