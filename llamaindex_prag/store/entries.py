"""Contents of a store's tables, and the changes that touch several of them.

All functions work on the rows of the caller's transaction, which `LMDBStore` begins and commits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError, StoreError
from llamaindex_prag.store import ownership
from llamaindex_prag.store.environment import Rows
from rag_backbone.errors import ConfigurationError

TABLES = ("meta", "values", "records", "layouts", "recipes", "side", *ownership.TABLES)
FORMAT = "dynprag adapter store"
VERSION = 1

_HASH = 32
_KEY_BYTES = 511
"""LMDB's limit on the size of a key."""


def hash_bytes(text: str, what: str = "a text's hash") -> bytes:
    """Return the 32 bytes of a hexadecimal hash.

    Raises:
        ConfigurationError: If `text` is not 64 hexadecimal digits.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(text) != 2 * _HASH or len(found) != _HASH:  # `fromhex` skips blanks
        raise ConfigurationError(f"{what} is {text!r}; it must be 64 hexadecimal digits, such as text_hash returns")
    return found


def side_name(table: str, key: str) -> bytes:
    """Return the name of a side entry: the key comes first, so that all entries of a text are adjacent."""
    name = f"{key}\0{table}".encode("utf-8", "surrogatepass")
    if "\0" in key or "\0" in table or len(name) > _KEY_BYTES:
        raise ConfigurationError(
            f"table {table!r} and key {key[:80]!r} have {len(name)} bytes together; at most {_KEY_BYTES}, without NUL"
        )
    return name


def as_json(value: Any) -> bytes:
    """Encode plain data as JSON.

    Raises:
        AdapterRefusedError: If the value is not plain JSON data.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise AdapterRefusedError(f"only plain JSON data can be stored: {error}") from error


def from_json(row: bytes | memoryview) -> Any:
    """Decode what `as_json` encoded."""
    return json.loads(bytes(row).decode("utf-8", "surrogatepass"))


def check_format(description: bytes | None) -> None:
    """Refuse a folder that this release cannot read.

    Raises:
        StoreError: If it is not an adapter store, or one of a newer version.
    """
    if description is None:
        return
    try:
        fields = json.loads(description)
        known, version = fields["format"], int(fields["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"this is not an adapter store: its description is {description[:80]!r}") from error
    if known != FORMAT:
        raise StoreError(f"this is not an adapter store: it calls itself {known!r}, not {FORMAT!r}")
    if version > VERSION:
        raise StoreError(f"the store has format version {version}; this release reads up to {VERSION}: upgrade dynprag")


def describe(rows: Rows, model: str) -> None:
    """Write the store's description, unless another process was faster."""
    row = json.dumps({"format": FORMAT, "version": VERSION, "model": model}).encode()
    rows.put("meta", b"format", row, overwrite=False)


def generation(rows: Rows) -> int:
    """Return how often an adapter was removed or replaced."""
    return int.from_bytes(rows.get("meta", b"generation") or b"", "little")


def count_change(rows: Rows) -> None:
    """Increment the generation."""
    count = generation(rows) + 1
    rows.put("meta", b"generation", count.to_bytes(8, "little"))


def settle_layout(rows: Rows, recipe: bytes, layout: Layout) -> None:
    """Store a recipe's layout the first time, and compare with it afterwards.

    Raises:
        AdapterRefusedError: If the recipe's other adapters have another layout.
    """
    digest = layout.digest.encode()
    known = rows.get("recipes", recipe)
    first = b"" if known is None else bytes(known)
    if not first:
        rows.put("recipes", recipe, digest)
        rows.put("layouts", digest, as_json(layout.to_dict()))
    elif first != digest:
        raise AdapterRefusedError(
            f"the adapter has {layout!r} with digest {digest.decode()[:12]}; adapters of recipe {recipe.hex()[:12]} "
            f"have {read_layout(rows, first.decode())!r} with digest {first.decode()[:12]}. "
            "Another set of layers or another rank needs another recipe."
        )


def read_layout(rows: Rows, digest: str) -> Layout:
    """Return the layout with this digest.

    Raises:
        AdapterDamagedError: If it is missing, unreadable, or has another digest.
    """
    row = rows.get("layouts", digest.encode())
    if row is None:
        raise AdapterDamagedError(f"its layout {digest[:12]} is not in the store")
    try:
        layout = Layout.from_dict(from_json(row))
    except ValueError as error:
        raise AdapterDamagedError(f"its layout {digest[:12]} cannot be read: {error}") from error
    if layout.digest != digest:
        raise AdapterDamagedError(f"its layout {digest[:12]} has digest {layout.digest[:12]}")
    return layout


def remove_adapter(rows: Rows, name: bytes) -> int:
    """Remove one adapter, and everything else of its text if it was the last one; return 1 if it existed, else 0."""
    if not rows.delete("values", name):
        return 0
    rows.delete("records", name)
    count_change(rows)
    text = name[:_HASH]
    if not rows.keys("values", text):
        _remove_beside(rows, text)
    return 1


def remove_text(rows: Rows, text: bytes) -> int:
    """Remove a text with all its adapters; return how many adapters were removed."""
    removed = sum(remove_adapter(rows, name) for name in rows.keys("values", text))
    _remove_beside(rows, text)
    return removed


def drop_unused_layouts(rows: Rows) -> None:
    """Remove recipes without an adapter, and layouts without a recipe."""
    used = {name[_HASH:] for name in rows.keys("values")}
    recipes = [(recipe, bytes(digest)) for recipe, digest in rows.items("recipes")]
    for recipe, _ in recipes:
        if recipe not in used:
            rows.delete("recipes", recipe)
    kept = {digest for recipe, digest in recipes if recipe in used}
    for digest in rows.keys("layouts"):
        if digest not in kept:
            rows.delete("layouts", digest)


class RowsChange:
    """The changes of documents, texts and adapters, as `BaseStore` asks for them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def own(self, document_id: str, texts: Iterable[str], *, purge: bool) -> list[str]:
        """Replace a document's texts; return those that no document uses any more, which `purge` removes."""
        return self._freed(ownership.own(self._rows, document_id, map(bytes.fromhex, texts)), purge=purge)

    def own_also(self, document_id: str, texts: Iterable[str]) -> None:
        """Add to a document's texts."""
        ownership.own_also(self._rows, document_id, map(bytes.fromhex, texts))

    def remove_document(self, document_id: str) -> list[str]:
        """Remove a document from all indexes, and the texts that no document uses any more; return these."""
        return self._freed(ownership.forget_document(self._rows, document_id), purge=True)

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Record that an index holds documents."""
        for document_id in document_ids:
            ownership.hold(self._rows, document_id, index)

    def let_go(self, indexes: Collection[str], document_id: str, keep: Iterable[str], *, purge: bool) -> list[str]:
        """Remove the texts that indexes no longer have; return those that no document uses any more."""
        kept = [bytes.fromhex(text) for text in keep]
        return self._freed(ownership.let_go(self._rows, document_id, indexes, kept), purge=purge)

    def remove_adapter(self, text: str, recipe: str) -> int:
        """Remove one adapter; return how many there were."""
        return remove_adapter(self._rows, bytes.fromhex(text + recipe))

    def remove_text(self, text: str) -> int:
        """Remove a text; return how many adapters it had."""
        return remove_text(self._rows, bytes.fromhex(text))

    def _freed(self, texts: list[bytes], *, purge: bool) -> list[str]:
        for text in texts if purge else ():
            remove_text(self._rows, text)
        return [text.hex() for text in texts]


def _remove_beside(rows: Rows, text: bytes) -> None:
    prefix = text.hex().encode()
    beside = [name for name in rows.keys("side", prefix) if name[len(prefix) : len(prefix) + 1] in {b"\0", b"/"}]
    for name in beside:
        rows.delete("side", name)
    if beside:  # adapters may be translated from these entries
        count_change(rows)
    ownership.forget_text(rows, text)
