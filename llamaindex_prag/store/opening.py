"""Open the store of a folder, a URL or a description, whichever kind it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_prag.store.lmdb_store import LMDBStore
    from llamaindex_prag.store.object.store import ObjectStore


def is_url(where: object) -> bool:
    """Return whether a text is the URL of a shared store, not a folder."""
    return isinstance(where, str) and "://" in where


def open_store(
    where: str | Path | Mapping[str, Any], *, model: str | None, readonly: bool = False
) -> LMDBStore | ObjectStore:
    """Open a store: an `ObjectStore` at a URL such as `s3://bucket/adapters`, an `LMDBStore` in a folder.

    Args:
        where: A folder, a URL, or what `described()` of a store returned.
        model: Fingerprint of the adapters' base model. None: use that of an existing store.
        readonly: Never write; a description says so itself.

    Raises:
        StoreError: If there is no such store, or it cannot be used.
        ConfigurationError: If the URL's protocol is not known.
    """
    given = dict(where) if isinstance(where, Mapping) else {"readonly": readonly}
    if is_url(where) or "url" in given:  # the packages of one kind only are needed
        from llamaindex_prag.store.object.store import ObjectStore

        return ObjectStore(model=model, **{"url": where, **given})
    from llamaindex_prag.store.lmdb_store import LMDBStore

    return LMDBStore(model=model, **{"path": where, **given})


def described(store: object) -> dict[str, Any] | None:
    """Return what `open_store` opens a store from again, in any process; None if it exists only in memory."""
    from llamaindex_prag.store.lmdb_store import LMDBStore
    from llamaindex_prag.store.object.store import ObjectStore

    if isinstance(store, LMDBStore) or (isinstance(store, ObjectStore) and not store.url.startswith("memory:")):
        return store.described()
    return None
