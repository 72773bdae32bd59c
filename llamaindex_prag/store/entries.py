"""Contents of a store's tables, and the changes that touch several of them.

All functions work inside the caller's transaction, which `LMDBStore` begins and commits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import lmdb

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError, StoreError
from llamaindex_prag.store import ownership
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from lmdb import _Database as Table

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


def describe(transaction: lmdb.Transaction[bytes], tables: dict[str, Table], model: str) -> None:
    """Write the store's description, unless another process was faster."""
    row = json.dumps({"format": FORMAT, "version": VERSION, "model": model}).encode()
    transaction.put(b"format", row, overwrite=False, db=tables["meta"])


def generation(transaction: lmdb.Transaction[Any], tables: dict[str, Table]) -> int:
    """Return how often an adapter was removed or replaced."""
    return int.from_bytes(transaction.get(b"generation", b"", db=tables["meta"]), "little")


def count_change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> None:
    """Increment the generation."""
    count = generation(transaction, tables) + 1
    transaction.put(b"generation", count.to_bytes(8, "little"), db=tables["meta"])


def settle_layout(
    transaction: lmdb.Transaction[bytes], tables: dict[str, Table], recipe: bytes, layout: Layout
) -> None:
    """Store a recipe's layout the first time, and compare with it afterwards.

    Raises:
        AdapterRefusedError: If the recipe's other adapters have another layout.
    """
    digest = layout.digest.encode()
    first = transaction.get(recipe, db=tables["recipes"])
    if first is None:
        transaction.put(recipe, digest, db=tables["recipes"])
        transaction.put(digest, as_json(layout.to_dict()), db=tables["layouts"])
    elif first != digest:
        raise AdapterRefusedError(
            f"the adapter has {layout!r} with digest {digest.decode()[:12]}; adapters of recipe {recipe.hex()[:12]} "
            f"have {read_layout(transaction, tables, first.decode())!r} with digest {first.decode()[:12]}. "
            "Another set of layers or another rank needs another recipe."
        )


def read_layout(transaction: lmdb.Transaction[Any], tables: dict[str, Table], digest: str) -> Layout:
    """Return the layout with this digest.

    Raises:
        AdapterDamagedError: If it is missing, unreadable, or has another digest.
    """
    row = transaction.get(digest.encode(), db=tables["layouts"])
    if row is None:
        raise AdapterDamagedError(f"its layout {digest[:12]} is not in the store")
    try:
        layout = Layout.from_dict(from_json(row))
    except ValueError as error:
        raise AdapterDamagedError(f"its layout {digest[:12]} cannot be read: {error}") from error
    if layout.digest != digest:
        raise AdapterDamagedError(f"its layout {digest[:12]} has digest {layout.digest[:12]}")
    return layout


def remove_adapter(transaction: lmdb.Transaction[bytes], tables: dict[str, Table], name: bytes) -> int:
    """Remove one adapter, and everything else of its text if it was the last one; return 1 if it existed, else 0."""
    if not transaction.delete(name, db=tables["values"]):
        return 0
    transaction.delete(name, db=tables["records"])
    count_change(transaction, tables)
    text = name[:_HASH]
    if next(ownership.starting_with(transaction, tables["values"], text), None) is None:
        _remove_beside(transaction, tables, text)
    return 1


def remove_text(transaction: lmdb.Transaction[bytes], tables: dict[str, Table], text: bytes) -> int:
    """Remove a text with all its adapters; return how many adapters were removed."""
    removed = sum(
        remove_adapter(transaction, tables, name)
        for name in list(ownership.starting_with(transaction, tables["values"], text))
    )
    _remove_beside(transaction, tables, text)
    return removed


def drop_unused_layouts(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> None:
    """Remove recipes without an adapter, and layouts without a recipe."""
    names = transaction.cursor(tables["values"]).iternext(keys=True, values=False)
    used = {bytes(name[_HASH:]) for name in names}
    recipes = [(bytes(k), bytes(v)) for k, v in transaction.cursor(tables["recipes"])]
    for recipe, _ in recipes:
        if recipe not in used:
            transaction.delete(recipe, db=tables["recipes"])
    kept = {digest for recipe, digest in recipes if recipe in used}
    for digest in [bytes(k) for k, _ in transaction.cursor(tables["layouts"])]:
        if digest not in kept:
            transaction.delete(digest, db=tables["layouts"])


def _remove_beside(transaction: lmdb.Transaction[bytes], tables: dict[str, Table], text: bytes) -> None:
    prefix = text.hex().encode()
    beside = [
        name
        for name in ownership.starting_with(transaction, tables["side"], prefix)
        if name[len(prefix) : len(prefix) + 1] in {b"\0", b"/"}
    ]
    for name in beside:
        transaction.delete(name, db=tables["side"])
    if beside:  # adapters may be translated from these entries
        count_change(transaction, tables)
    ownership.forget_text(transaction, tables, text)
