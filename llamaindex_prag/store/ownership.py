"""Documents, the texts that they use, and the indexes that hold them; a text is removed with its last document.

    documents   document -> its id, its texts' hashes, and the ids of the indexes that hold it
    owners      text, document -> the document's id
    unowned     text, whose last owner is gone

All functions work inside the caller's transaction. A text that never had an owner does not count as unowned: it stays
until it is removed by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import lmdb

from llamaindex_prag.store.base import StoredDocument

if TYPE_CHECKING:
    from lmdb import _Database as Table

TABLES = ("documents", "owners", "unowned")


def own(
    transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, texts: Iterable[bytes]
) -> list[bytes]:
    """Replace a document's texts.

    Args:
        transaction: A write transaction.
        tables: All tables by name.
        document_id: Any text.
        texts: Hashes, 32 bytes each.

    Returns:
        The document's former texts that no document uses any more, in their former order.
    """
    name = _name(document_id)
    row = _read(transaction, tables, document_id)
    before = _texts(row)
    after = list(dict.fromkeys(texts))
    for text in after:
        transaction.put(text + name, _encoded(document_id), db=tables["owners"])
        transaction.delete(text, db=tables["unowned"])
    freed = []
    for text in (t for t in before if t not in set(after)):
        transaction.delete(text + name, db=tables["owners"])
        if next(starting_with(transaction, tables["owners"], text), None) is None:
            transaction.put(text, b"1", db=tables["unowned"])
            freed.append(text)
    _write(transaction, tables, document_id, after, row["indexes"])
    return freed


def add_owner(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, text: bytes) -> None:
    """Add one text to a document."""
    own(transaction, tables, document_id, [*texts_of(transaction, tables, document_id), text])


def texts_of(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str) -> list[bytes]:
    """Return the texts of a document, in the order in which they were given."""
    return _texts(_read(transaction, tables, document_id))


def is_known(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str) -> bool:
    """Return whether a document uses a text, or an index holds it."""
    return transaction.get(_name(document_id), db=tables["documents"]) is not None


def forget_document(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str) -> list[bytes]:
    """Remove all texts from a document, and the document from all indexes; return the texts that became unowned."""
    freed = own(transaction, tables, document_id, ())
    _write(transaction, tables, document_id, [], [])
    return freed


def hold(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, index: str) -> None:
    """Record that an index holds a document, whether it has adapters or not."""
    row = _read(transaction, tables, document_id)
    if index not in row["indexes"]:
        _write(transaction, tables, document_id, _texts(row), [*row["indexes"], index])


def let_go(
    transaction: lmdb.Transaction[Any],
    tables: dict[str, Table],
    document_id: str,
    indexes: Collection[str],
    keep: Iterable[bytes],
) -> list[bytes]:
    """Remove from a document the texts that indexes no longer have, unless another index holds it.

    Args:
        transaction: A write transaction.
        tables: All tables by name.
        document_id: Any text.
        indexes: Ids of the indexes that have changed.
        keep: The document's texts that they still have; if empty, they no longer hold it.

    Returns:
        The texts that no document uses any more.
    """
    row, kept = _read(transaction, tables, document_id), set(keep)
    others = [index for index in row["indexes"] if index not in indexes]
    rest = row["indexes"] if kept else others
    _write(transaction, tables, document_id, _texts(row), rest)
    if others:
        return []
    return own(transaction, tables, document_id, [text for text in _texts(row) if text in kept])


def documents(transaction: lmdb.Transaction[Any], tables: dict[str, Table]) -> Iterator[StoredDocument]:
    """Yield all documents, in no particular order."""
    for _, value in transaction.cursor(tables["documents"]):
        row = _decoded(bytes(value))
        yield StoredDocument(id=row["id"], texts=tuple(row["texts"]), indexes=tuple(row["indexes"]))


def owners_of(transaction: lmdb.Transaction[Any], tables: dict[str, Table], text: bytes) -> list[str]:
    """Return the ids of the documents that use a text, sorted."""
    rows = starting_with(transaction, tables["owners"], text)
    return sorted(
        bytes(transaction.get(row, db=tables["owners"]) or b"").decode("utf-8", "surrogatepass") for row in rows
    )


def forget_text(transaction: lmdb.Transaction[Any], tables: dict[str, Table], text: bytes) -> None:
    """Remove a text from all documents."""
    for document_id in owners_of(transaction, tables, text):
        row = _read(transaction, tables, document_id)
        transaction.delete(text + _name(document_id), db=tables["owners"])
        _write(transaction, tables, document_id, [t for t in _texts(row) if t != text], row["indexes"])
    transaction.delete(text, db=tables["unowned"])


def unowned(transaction: lmdb.Transaction[Any], tables: dict[str, Table]) -> list[bytes]:
    """Return the texts whose last owner is gone."""
    return [bytes(key) for key in transaction.cursor(tables["unowned"]).iternext(keys=True, values=False)]


def starting_with(transaction: lmdb.Transaction[Any], table: Table, prefix: bytes) -> Iterator[bytes]:
    """Yield the keys of a table that begin with `prefix`. The table must not change during the iteration."""
    cursor = transaction.cursor(table)
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key
        found = cursor.next()


def _read(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str) -> dict[str, Any]:
    row = transaction.get(_name(document_id), db=tables["documents"])
    return {"id": document_id, "texts": [], "indexes": []} if row is None else _decoded(bytes(row))


def _decoded(row: bytes) -> dict[str, Any]:
    return {"indexes": [], **json.loads(row)}  # entries of documents that no index holds may lack the field


def _texts(row: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(text) for text in row["texts"]]


def _write(
    transaction: lmdb.Transaction[Any],
    tables: dict[str, Table],
    document_id: str,
    texts: list[bytes],
    indexes: list[str],
) -> None:
    if texts or indexes:
        row = {"id": document_id, "texts": [text.hex() for text in texts], "indexes": indexes}
        transaction.put(_name(document_id), json.dumps(row).encode(), db=tables["documents"])
    else:
        transaction.delete(_name(document_id), db=tables["documents"])


def _name(document_id: str) -> bytes:
    # LMDB keys have at most 511 bytes, but an id may be a long path.
    return hashlib.sha256(_encoded(document_id)).digest()


def _encoded(document_id: str) -> bytes:
    return document_id.encode("utf-8", "surrogatepass")
