"""Check that the data file of an LMDB environment is valid and complete.

LMDB maps the file and trusts it: touching a page beyond the end of a truncated file kills the process (SIGBUS).
However, a valid file may be shorter than its last page number says: pages that were allocated and freed within one
transaction are never written. So a short file is traversed from the roots to see whether any page *in use* is missing.

On 64-bit machines, pages of LMDB 0.9 (data version 1) have a header of 16 bytes, followed by

    meta    magic, version, address, map size, free tree, main tree, last page, transaction
    tree    page size or unused, flags, depth, branch pages, leaf pages, overflow pages, entries, root page
    branch  offsets of nodes: child page, key size, key
    leaf    offsets of nodes: data size, flags, key size, key, data | first overflow page | tree
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llamaindex_prag.errors import StoreError

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
COMPACTING = ".compacting-"
"""Prefix of the folder into which a store is copied for compaction."""

_PAGE = struct.Struct("=QHHHH")  # number, unused, flags, lower, upper; overflow pages keep their count in the last two
_META = struct.Struct("=II8xQ")
_TREE = struct.Struct("=IHHQQQQQ")
_NODE = struct.Struct("=HHHH")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF = 1, 2
_OVERFLOW_DATA, _TREE_DATA = 1, 2
_SMALLEST = 2 * 4096
_NO_PAGE = 2**64 - 1
_TREES_AT = _PAGE.size + _META.size


def is_new(folder: Path, *, readonly: bool) -> bool:
    """Return whether a store has yet to be created in a folder. Creates the folder itself.

    Raises:
        StoreError: If it cannot be created there, or the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder")
    data = folder / DATA_FILE
    new = not data.exists() or data.stat().st_size == 0
    if readonly:
        if new:
            raise StoreError(f"there is no store at {folder}; create it without readonly=True first")
        return False
    if folder.exists():
        names = [entry.name for entry in folder.iterdir()]
        other = [name for name in names if name != LOCK_FILE and not name.startswith(COMPACTING)]
        if other and not data.exists():
            raise StoreError(
                f"{folder} is not an adapter store: it has no {DATA_FILE}, but {', '.join(sorted(other)[:3])}. "
                "Name an empty folder, or one that does not exist yet."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} for the store cannot be created: {error}") from error
    if not os.access(folder, os.W_OK) or (data.exists() and not os.access(data, os.W_OK)):
        raise StoreError(f"{folder} cannot be written by this user; open the store with readonly=True")
    return new


def check_header(data_file: Path) -> None:
    """Refuse files that must not be opened with LMDB at all.

    Raises:
        StoreError: If it is not an LMDB file, or too short for its first two pages.
    """
    size = data_file.stat().st_size
    if size == 0:  # a process died while creating the store; LMDB starts over
        return
    if size < _SMALLEST:  # another process may be creating it right now
        time.sleep(0.1)
        size = data_file.stat().st_size
    with data_file.open("rb") as file:
        head = file.read(_TREES_AT + 2 * _TREE.size)
    if len(head) < _TREES_AT + 2 * _TREE.size:
        raise StoreError(f"{data_file} has {size} bytes: it is truncated, or not an adapter store")
    magic, version, _ = _META.unpack_from(head, _PAGE.size)
    if magic != _MAGIC:
        raise StoreError(f"{data_file} is not an adapter store: it does not begin like an LMDB file")
    if version != _VERSION:
        raise StoreError(
            f"{data_file} has LMDB data version {version}; stores are written with version {_VERSION}. "
            "Unset LMDB_DEFAULT_LIB_VERSION if it is set."
        )
    if size < 2 * (page := _TREE.unpack_from(head, _TREES_AT)[0]):
        raise StoreError(f"{data_file} has {size} bytes and is truncated: its first two pages alone have {2 * page}")


def check_complete(data_file: Path) -> None:
    """Refuse a file with missing pages that are in use.

    Call it while a read transaction is open; otherwise a writer may reuse pages during the traversal.

    Raises:
        StoreError: If a page in use lies beyond the end of the file.
    """
    size = data_file.stat().st_size
    with data_file.open("rb") as file:
        first = file.read(_TREES_AT + 2 * _TREE.size)
        page_size = _TREE.unpack_from(first, _TREES_AT)[0]
        metas = []
        for number in (0, 1):
            file.seek(number * page_size + _TREES_AT)
            trees = file.read(2 * _TREE.size + 16)
            last, transaction = struct.unpack_from("=QQ", trees, 2 * _TREE.size)
            roots = [_TREE.unpack_from(trees, i * _TREE.size)[7] for i in (0, 1)]
            metas.append((transaction, last, roots))
        _, last, roots = max(metas)
        if size >= (last + 1) * page_size:
            return
        for end in _ends(file, page_size, roots):
            if end * page_size > size:
                raise StoreError(
                    f"{data_file} is truncated: it has {size} bytes, but a page in use ends at byte {end * page_size}. "
                    "Restore it from a copy, or delete the store and train its adapters again."
                )


def _ends(file: BinaryIO, page_size: int, roots: list[int]) -> Iterator[int]:
    """Yield the end of each page in use, as the next page number, before the page is read."""
    pending = [root for root in roots if root != _NO_PAGE]
    while pending:
        number = pending.pop()
        yield number + 1
        page = _read(file, number * page_size, page_size)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        count = (lower - _PAGE.size) // 2
        if not flags & (_BRANCH | _LEAF) or not 0 <= count <= page_size // 2:
            raise StoreError(f"page {number} of the store is damaged: it is neither branch nor leaf")
        for offset in struct.unpack_from(f"={count}H", page, _PAGE.size):
            low, high, kind, key_size = _NODE.unpack_from(page, offset)
            data = offset + _NODE.size + key_size
            if flags & _BRANCH:
                pending.append(low | high << 16 | kind << 32)
            elif kind & _OVERFLOW_DATA:
                start = struct.unpack_from("=Q", page, data)[0]
                yield start + 1
                head = _read(file, start * page_size, _PAGE.size)
                yield start + struct.unpack_from("=I", head, _PAGE.size - 4)[0]
            elif kind & _TREE_DATA and (root := _TREE.unpack_from(page, data)[7]) != _NO_PAGE:
                pending.append(root)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
