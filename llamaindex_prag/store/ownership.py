"""Documents, the texts that they use, and the indexes that hold them; a text is removed with its last document.

    documents   document -> its id, its texts' hashes, and the ids of the indexes that hold it
    owners      text, document -> the document's id
    unowned     text, whose last owner is gone

All functions work on the rows of the caller's transaction. A text that never had an owner does not count as unowned: it
stays until it is removed by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from llamaindex_prag.store.base import StoredDocument
from llamaindex_prag.store.environment import Rows

TABLES = ("documents", "owners", "unowned")


def own(rows: Rows, document_id: str, texts: Iterable[bytes]) -> list[bytes]:
    """Replace a document's texts.

    Args:
        rows: Rows of a write transaction.
        document_id: Any text.
        texts: Hashes, 32 bytes each.

    Returns:
        The document's former texts that no document uses any more, in their former order.
    """
    name = _name(document_id)
    row = _read(rows, document_id)
    before = _texts(row)
    after = list(dict.fromkeys(texts))
    for text in after:
        rows.put("owners", text + name, _encoded(document_id))
        rows.delete("unowned", text)
    freed = []
    for text in (t for t in before if t not in set(after)):
        rows.delete("owners", text + name)
        if not rows.keys("owners", text):
            rows.put("unowned", text, b"1")
            freed.append(text)
    _write(rows, document_id, after, row["indexes"])
    return freed


def own_also(rows: Rows, document_id: str, texts: Iterable[bytes]) -> None:
    """Add texts to a document."""
    own(rows, document_id, [*texts_of(rows, document_id), *texts])


def texts_of(rows: Rows, document_id: str) -> list[bytes]:
    """Return the texts of a document, in the order in which they were given."""
    return _texts(_read(rows, document_id))


def is_known(rows: Rows, document_id: str) -> bool:
    """Return whether a document uses a text, or an index holds it."""
    return rows.get("documents", _name(document_id)) is not None


def is_held(rows: Rows, document_id: str, index: str) -> bool:
    """Return whether an index holds a document."""
    return index in _read(rows, document_id)["indexes"]


def forget_document(rows: Rows, document_id: str) -> list[bytes]:
    """Remove all texts from a document, and the document from all indexes; return the texts that became unowned."""
    freed = own(rows, document_id, ())
    _write(rows, document_id, [], [])
    return freed


def hold(rows: Rows, document_id: str, index: str) -> None:
    """Record that an index holds a document, whether it has adapters or not."""
    row = _read(rows, document_id)
    if index not in row["indexes"]:
        _write(rows, document_id, _texts(row), [*row["indexes"], index])


def let_go(rows: Rows, document_id: str, indexes: Collection[str], keep: Iterable[bytes]) -> list[bytes]:
    """Remove from a document the texts that indexes no longer have, unless another index holds it.

    Args:
        rows: Rows of a write transaction.
        document_id: Any text.
        indexes: Ids of the indexes that have changed.
        keep: The document's texts that they still have; if empty, they no longer hold it.

    Returns:
        The texts that no document uses any more.
    """
    row, kept = _read(rows, document_id), set(keep)
    others = [index for index in row["indexes"] if index not in indexes]
    rest = row["indexes"] if kept else others
    _write(rows, document_id, _texts(row), rest)
    if others:
        return []
    return own(rows, document_id, [text for text in _texts(row) if text in kept])


def documents(rows: Rows) -> Iterator[StoredDocument]:
    """Yield all documents, in no particular order."""
    for _, value in rows.items("documents"):
        row = _decoded(bytes(value))
        yield StoredDocument(id=row["id"], texts=tuple(row["texts"]), indexes=tuple(row["indexes"]))


def owners_of(rows: Rows, text: bytes) -> list[str]:
    """Return the ids of the documents that use a text, sorted."""
    found = (rows.get("owners", name) for name in rows.keys("owners", text))
    return sorted(bytes(value).decode("utf-8", "surrogatepass") for value in found if value is not None)


def forget_text(rows: Rows, text: bytes) -> None:
    """Remove a text from all documents."""
    for document_id in owners_of(rows, text):
        row = _read(rows, document_id)
        rows.delete("owners", text + _name(document_id))
        _write(rows, document_id, [t for t in _texts(row) if t != text], row["indexes"])
    rows.delete("unowned", text)


def unowned(rows: Rows) -> list[bytes]:
    """Return the texts whose last owner is gone."""
    return rows.keys("unowned")


def _read(rows: Rows, document_id: str) -> dict[str, Any]:
    row = rows.get("documents", _name(document_id))
    return {"id": document_id, "texts": [], "indexes": []} if row is None else _decoded(bytes(row))


def _decoded(row: bytes) -> dict[str, Any]:
    return {"indexes": [], **json.loads(row)}  # entries of documents that no index holds may lack the field


def _texts(row: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(text) for text in row["texts"]]


def _write(rows: Rows, document_id: str, texts: list[bytes], indexes: list[str]) -> None:
    if texts or indexes:
        row = {"id": document_id, "texts": [text.hex() for text in texts], "indexes": indexes}
        rows.put("documents", _name(document_id), json.dumps(row).encode())
    else:
        rows.delete("documents", _name(document_id))


def _name(document_id: str) -> bytes:
    # LMDB keys have at most 511 bytes, but an id may be a long path.
    return hashlib.sha256(_encoded(document_id)).digest()


def _encoded(document_id: str) -> bytes:
    return document_id.encode("utf-8", "surrogatepass")
