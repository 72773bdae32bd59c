"""Adapters in an object store that many hosts share: S3, Google Cloud Storage, a shared folder, or memory.

    format.json                          which model the store is for
    layouts/<digest>-<sha256>            layouts
    objects/<writer>-<number>-<sha256>   encoded adapters and side entries; each belongs to one fact of the log
    log/...                              which adapters and owners there are: see `log` and `state`

Objects are immutable and checked when read; a local folder caches them. No host locks anything or waits for another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, AdapterMissingError
from llamaindex_prag.store import entries
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
from llamaindex_prag.store.encoding import Encoding, checked_encoding, decode_into, encode
from llamaindex_prag.store.object import maintenance
from llamaindex_prag.store.object.causal import Dot
from llamaindex_prag.store.object.changes import Change
from llamaindex_prag.store.object.contents import Contents
from llamaindex_prag.store.object.description import opened_for, without_secrets
from llamaindex_prag.store.object.disk_cache import DiskCache
from llamaindex_prag.store.object.facts import AdapterFact, SideFact
from llamaindex_prag.store.object.log import RecordLog
from llamaindex_prag.store.object.remote import RemoteFiles
from llamaindex_prag.store.object.state import State
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import cache_root

_READERS = 16
"""Number of adapters that are read at once."""


class ObjectStore(BaseStore):
    """An `AdapterStore` that many hosts share, below a URL of `fsspec`.

    Calls that do not overlap see each other's changes as those of `LMDBStore` do, on any host. Of calls that overlap,
    an addition wins over a removal that did not see it, and a text stays while any document uses it.

    Args:
        url: `s3://bucket/folder`, `gs://bucket/folder`, `file:///folder` or `memory://folder`.
        model: Fingerprint of the adapters' base model. None: use that of an existing store.
        encoding: Encoding of adapters that are stored from now on; existing ones keep theirs.
        readonly: Never write. Otherwise, opening checks that objects can be written.
        storage_options: Arguments of the file system, such as `{"endpoint_url": ...}` for an S3-compatible server.
            Credentials are better left to the environment, as the server's client finds them.
        removal_delay: Seconds for which a reader may use its last reading of the records: a removed document is gone
            for all readers so long after its removal returned. 0: read them before every call.
        grace: Seconds for which the bytes of removed documents are kept, so that a host that begins to use their texts
            at the same moment still finds them. Must be longer than any call takes.
        cache: Folder of the local cache; by default one in the user's cache folder.
        cache_bytes: Limit on the size of the cache.
        attempts: How often a request is made before it fails; the wait before each is twice as long as before the last.
            The client of Google Cloud Storage makes each of them up to six times by itself.
        timeout: Seconds to wait for a connection, and for each read (S3); for a whole request (Google Cloud Storage).

    Raises:
        StoreError: If the URL is not a store, cannot be reached, read or written, or belongs to another model or a
            newer version.
        ConfigurationError: If the URL's protocol or an option is not known.
        MissingExtraError: If the protocol's package is not installed.

    Example:
        >>> with ObjectStore("memory://example", model=key.model) as store:
        ...     store.put(key, adapter, {"steps": 40}, owners=["report.pdf"])
        ...     store.get(key)
        Adapter(Layout(90 layers, rank 8, 1,566,720 values), scale 2)
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        encoding: Encoding = "bfloat16",
        readonly: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        removal_delay: float = 30.0,
        grace: float = 3600.0,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int = 10 * 10**9,
        attempts: int = 5,
        timeout: float = 30.0,
    ) -> None:
        if removal_delay < 0 or grace < 0:
            raise ConfigurationError(f"removal_delay is {removal_delay} and grace {grace}; both must be at least 0")
        self.encoding = checked_encoding(encoding)
        self.readonly, self.removal_delay, self.grace = readonly, removal_delay, grace
        self._options = dict(storage_options or {})
        self._files = RemoteFiles(url, self._options, attempts=attempts, timeout=timeout)
        self.url = self._files.url
        folder = Path(cache) if cache is not None else cache_root() / "objects"
        self._contents = Contents(self._files, DiskCache(folder, cache_bytes))
        self._log = RecordLog(self._files, self._contents.discard)
        self.model = opened_for(self._files, model, readonly=readonly)
        self._refuse_unless_for(model, self.model)

    @property
    def generation(self) -> int:
        """A counter that rises when this process learns that an adapter was removed or replaced, by any host."""
        with self._log.lock:
            self._current()
            return self._log.losses

    def put(self, key: AdapterKey, adapter: Adapter, record: dict[str, Any], owners: Iterable[str] = ()) -> None:
        """Store an adapter durably: once this returns, every host can read it.

        Args:
            key: What the adapter was trained on.
            adapter: Its values.
            record: How it was trained, as plain JSON data.
            owners: Ids of documents that contain the text, added to the known ones.

        Raises:
            AdapterRefusedError: If it is for another model, its layout differs from that of the recipe's other
                adapters, a value has diverged, or the record is not JSON data.
            AdapterError: If values are not finite, or the buffer does not fit its layout.
            StoreError: If it cannot be written.
        """
        self._name(key)
        owners = tuple(owners)
        check_storable(key, adapter)
        content, row = encode(adapter, self.encoding), entries.as_json(record).decode("utf-8", "surrogatepass")
        log, layout = self._writable(), adapter.layout
        with log.lock:
            self._contents.settle_layout(log.refresh(0.0), key.recipe, layout)
        dot, digest = self._uploaded(content)
        self._contents.keep(digest, content)
        with log.lock:
            log.commit(
                lambda change: change.put(
                    dot,
                    AdapterFact(
                        turn=change.turn,
                        text=key.text,
                        recipe=key.recipe,
                        digest=digest,
                        size=len(content),
                        layout=layout.digest,
                        record=row,
                    ),
                    owners,
                )
            )

    def get(self, key: AdapterKey) -> Adapter | None:
        """Return an adapter with a newly allocated buffer, or None.

        Raises:
            AdapterDamagedError: If the stored bytes differ from what was written.
            StoreError: If the store cannot be read.
        """
        if (fact := self._fact(key)) is None:
            return None
        layout = self._contents.layout(fact.layout)
        out = np.empty(layout.size, np.float32)
        try:
            return Adapter(layout, out, self.read_into(key, out))
        except AdapterMissingError:  # removed in the meantime
            return None

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write an adapter's values into `out` and return its scale.

        Args:
            key: The adapter's key.
            out: (layout.size,) float32, contiguous.

        Raises:
            AdapterMissingError: If there is no adapter with this key.
            AdapterDamagedError: If the stored bytes differ from what was written.
            StoreError: If the store cannot be read.
        """
        for last in (False, True):
            self._name(key)
            with self._log.lock:
                found = self._current(0.0 if last else None).adapter(key.text, key.recipe)
            if found is None:
                raise self._missing(key)
            try:
                return decode_into(self._contents.read(*found), out).scale
            except FileNotFoundError:  # its bytes are gone: either this process does not know yet that it was removed,
                continue
            except AdapterDamagedError as error:
                raise damaged(key, error) from error
        assert found is not None  # or it is lost
        raise damaged(key, AdapterDamagedError(f"{self._contents.address(*found)} does not exist"))

    def read_many(self, keys: Sequence[AdapterKey], outs: Sequence[NDArray[np.float32]]) -> list[float]:
        """Write each adapter's values into its `outs` (layout.size,), reading several at once; return their scales.

        Raises:
            AdapterMissingError: If there is no adapter with one of the keys.
            AdapterDamagedError: If the stored bytes of one differ from what was written.
            StoreError: If the store cannot be read.
        """
        if len(keys) < 2:
            return [self.read_into(key, out) for key, out in zip(keys, outs, strict=True)]
        self._current()
        with ThreadPoolExecutor(min(_READERS, len(keys))) as pool:
            return list(pool.map(self.read_into, keys, outs))

    def digest(self, key: AdapterKey) -> str | None:
        """Return the SHA-256 of an adapter as stored, which depends on values, scale and encoding, or None."""
        fact = self._fact(key)
        return None if fact is None else fact.digest

    def layout(self, key: AdapterKey) -> Layout | None:
        """Return the layout of a stored adapter without reading its values, or None."""
        fact = self._fact(key)
        return None if fact is None else self._contents.layout(fact.layout)

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """Return how an adapter was trained, or None."""
        fact = self._fact(key)
        return None if fact is None else json.loads(fact.record)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, AdapterKey) and key.model == self.model and self._fact(key) is not None

    def __len__(self) -> int:
        with self._log.lock:
            return sum(1 for _ in self._current().adapters())

    def keys(self) -> list[AdapterKey]:
        """Return the keys of all adapters currently in the store, sorted by text."""
        with self._log.lock:
            return [AdapterKey(self.model, fact.recipe, fact.text) for _, fact in self._current().adapters()]

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Store JSON data, such as an augmenter's results.

        Args:
            table: Any name.
            key: Any name; one that is a text hash, or starts with a text hash and `/`, is removed with that text.
            value: Plain JSON data.
        """
        entries.side_name(table, key)
        content, log = entries.as_json(value), self._writable()
        dot, digest = self._uploaded(content)
        log.commit(
            lambda change: change.put_side(
                dot, SideFact(turn=change.turn, table=table, key=key, digest=digest, size=len(content))
            )
        )

    def get_json(self, table: str, key: str) -> Any | None:
        """Return data stored by `put_json`, or None."""
        entries.side_name(table, key)
        for last in (False, True):
            with self._log.lock:
                found = self._current(0.0 if last else None).side(table, key)
            if found is None:
                return None
            try:
                return entries.from_json(self._contents.read(*found))
            except FileNotFoundError:  # replaced or removed in the meantime
                continue
        assert found is not None
        raise AdapterDamagedError(f"{self._contents.address(*found)} of table {table!r}, key {key!r} does not exist")

    def owners(self, text_hash: str) -> list[str]:
        """Return the ids of the documents that use a text."""
        entries.hash_bytes(text_hash)
        with self._log.lock:
            return sorted({fact.document for _, fact in self._current().owners(text_hash)})

    def texts(self, document_id: str) -> list[str]:
        """Return the hashes of the texts that a document uses."""
        with self._log.lock:
            return self._current().texts(document_id)

    def documents(self) -> list[StoredDocument]:
        """Return all documents, sorted by id, with their texts and the indexes that hold them."""
        with self._log.lock:
            return self._current().documents()

    def gc(self, *, dry_run: bool = False) -> GcReport:
        """Remove the texts whose last owner is gone, merge the records, and delete objects that nothing needs.

        Bytes of documents that were removed less than `grace` seconds ago stay; `GcReport.reason` says so.

        Args:
            dry_run: Only report what would be removed.
        """
        if dry_run:
            with self._log.lock:
                return maintenance.to_collect(self._current(0.0), self._files)
        return maintenance.collect(self._writable(), self._files, self.grace)

    def described(self) -> dict[str, Any]:
        """Return the arguments that open this store again, except for the model's fingerprint and credentials."""
        return {
            "url": self.url,
            "encoding": self.encoding,
            "readonly": self.readonly,
            "storage_options": without_secrets(self._options),
            "removal_delay": self.removal_delay,
            "grace": self.grace,
        }

    def stats(self) -> StoreStats:
        """Return the store's statistics."""
        with self._log.lock:
            state, losses = self._current(), self._log.losses
            return maintenance.measure(state, self._files, self.model, self.encoding, losses)

    def adapters(self) -> list[StoredAdapter]:
        """List the adapters with their documents, recipes and sizes."""
        with self._log.lock:
            return maintenance.listed(self._current())

    def verify(self, progress: bool = False) -> VerifyReport:
        """Read and check every adapter from the server, not from the cache: checksum, size, finite values, layout.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        with self._log.lock:
            found = list(self._current(0.0).adapters())
        return maintenance.verify(found, self._contents, self.model, lambda key: key in self, progress=progress)

    @property
    def _where(self) -> str:
        return self.url

    def _current(self, max_age: float | None = None) -> State:
        self._refuse_closed()
        return self._log.refresh(self.removal_delay if max_age is None else max_age)

    def _writable(self) -> RecordLog:
        self._refuse_closed()
        self._refuse_readonly()
        return self._log

    def _change(self, build: Callable[[Change], T]) -> T:
        return self._writable().commit(build)

    def _freed(self, build: Callable[[Change], list[str]]) -> list[str]:
        log = self._writable()
        with log.lock:
            return [text for text in log.commit(build) if not log.state.owners(text)]

    def _fact(self, key: AdapterKey) -> AdapterFact | None:
        self._name(key)
        with self._log.lock:
            found = self._current().adapter(key.text, key.recipe)
        return None if found is None else found[1]

    def _uploaded(self, content: bytes) -> tuple[Dot, str]:
        dot, digest = self._log.new_dot(), hashlib.sha256(content).hexdigest()
        self._contents.write(dot, digest, content)
        return dot, digest
