"""Which documents use which text, so that a text goes when its last document does.

    documents   document -> its id and its texts' hashes
    owners      text, document -> the document's id
    unowned     text, whose last owner is gone

All functions work inside the caller's transaction. A text that never had an owner is not unowned: it is kept until it
is removed by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import lmdb

if TYPE_CHECKING:
    from lmdb import _Database as Table

TABLES = ("documents", "owners", "unowned")


def own(
    transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, texts: Iterable[bytes]
) -> list[bytes]:
    """Replace a document's texts.

    Args:
        transaction: For writing.
        tables: All tables by name.
        document_id: Any text.
        texts: Hashes, 32 bytes each.

    Returns:
        The texts that the document used and nobody uses any more, in the order in which it had them.
    """
    name = _name(document_id)
    before = texts_of(transaction, tables, document_id)
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
    _write(transaction, tables, document_id, after)
    return freed


def add_owner(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, text: bytes) -> None:
    """Add one text to a document."""
    own(transaction, tables, document_id, [*texts_of(transaction, tables, document_id), text])


def texts_of(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str) -> list[bytes]:
    """The texts of a document, in the order in which it named them."""
    row = transaction.get(_name(document_id), db=tables["documents"])
    return [] if row is None else [bytes.fromhex(text) for text in json.loads(bytes(row))["texts"]]


def owners_of(transaction: lmdb.Transaction[Any], tables: dict[str, Table], text: bytes) -> list[str]:
    """The ids of the documents that use a text, sorted."""
    rows = starting_with(transaction, tables["owners"], text)
    return sorted(
        bytes(transaction.get(row, db=tables["owners"]) or b"").decode("utf-8", "surrogatepass") for row in rows
    )


def forget_text(transaction: lmdb.Transaction[Any], tables: dict[str, Table], text: bytes) -> None:
    """Take a text out of all documents."""
    for document_id in owners_of(transaction, tables, text):
        rest = [t for t in texts_of(transaction, tables, document_id) if t != text]
        transaction.delete(text + _name(document_id), db=tables["owners"])
        _write(transaction, tables, document_id, rest)
    transaction.delete(text, db=tables["unowned"])


def unowned(transaction: lmdb.Transaction[Any], tables: dict[str, Table]) -> list[bytes]:
    """The texts whose last owner is gone."""
    return [bytes(key) for key in transaction.cursor(tables["unowned"]).iternext(keys=True, values=False)]


def starting_with(transaction: lmdb.Transaction[Any], table: Table, prefix: bytes) -> Iterator[bytes]:
    """The keys of a table that begin so. The table must not be changed meanwhile."""
    cursor = transaction.cursor(table)
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key
        found = cursor.next()


def _write(transaction: lmdb.Transaction[Any], tables: dict[str, Table], document_id: str, texts: list[bytes]) -> None:
    if texts:
        row = {"id": document_id, "texts": [text.hex() for text in texts]}
        transaction.put(_name(document_id), json.dumps(row).encode(), db=tables["documents"])
    else:
        transaction.delete(_name(document_id), db=tables["documents"])


def _name(document_id: str) -> bytes:
    # LMDB's keys have at most 511 bytes; an id may be a long path.
    return hashlib.sha256(_encoded(document_id)).digest()


def _encoded(document_id: str) -> bytes:
    return document_id.encode("utf-8", "surrogatepass")
