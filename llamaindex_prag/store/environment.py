"""An LMDB environment that several stores of a process share.

Handles what LMDB leaves to its users, and nothing else; knows nothing of what is stored:

- The map is enlarged when it is full, or when another process has enlarged the file. That replaces the mapping under
  all transactions of this process, so each transaction holds a `ReadWriteLock` that remapping needs exclusively.
- The file never shrinks by itself. `compact` copies it and renames the copy over it, which is safe only if no other
  process has the old one open: every environment holds a shared `flock` on the folder, and `compact` needs an exclusive
  one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from llamaindex_prag.errors import StoreError, StoreFullError
from llamaindex_prag.store.datafile import COMPACTING, DATA_FILE, LOCK_FILE, check_complete, check_header
from llamaindex_prag.store.folders import lock_folder, sync
from rag_backbone.read_write_lock import ReadWriteLock

if TYPE_CHECKING:
    from lmdb import _Database as Table

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_READERS = 1024
# LMDB also reports EIO for a short write, which is the usual symptom of a full disk.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Rows:
    """The rows of all tables within one transaction.

    Args:
        transaction: The transaction.
        tables: The tables by name.
    """

    def __init__(self, transaction: lmdb.Transaction[Any], tables: dict[str, Table]) -> None:
        self._transaction, self._tables = transaction, tables

    def get(self, table: str, key: bytes) -> bytes | memoryview | None:
        """Return the value of a key, or None. A read transaction returns a view, which ends with it."""
        return self._transaction.get(key, db=self._tables[table])

    def put(self, table: str, key: bytes, value: bytes, *, overwrite: bool = True) -> None:
        """Set the value of a key, or with `overwrite=False`, only of a new one."""
        self._transaction.put(key, value, overwrite=overwrite, db=self._tables[table])

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a key; return whether it existed."""
        return self._transaction.delete(key, db=self._tables[table])

    def items(self, table: str) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Yield all keys and values, sorted by key."""
        for key, value in self._transaction.cursor(self._tables[table]):
            yield bytes(key), value

    def keys(self, table: str, prefix: bytes = b"") -> list[bytes]:
        """Return the keys that begin with `prefix`, sorted."""
        cursor, found = self._transaction.cursor(self._tables[table]), []
        more = cursor.set_range(prefix)
        while more and (key := bytes(cursor.key())).startswith(prefix):
            found.append(key)
            more = cursor.next()
        return found

    def stat(self, table: str) -> Any:
        """Return LMDB's figures of a table."""
        return self._transaction.stat(self._tables[table])


class SharedEnvironment:
    """The environment of one folder in this process.

    Args:
        folder: The resolved folder.
        tables: Names of its tables.
        check: Called with the first table's `format` entry whenever the files are opened; with None if they are new.
        map_size: Initial map size in bytes; enlarged when needed.
        readonly: Whether all handles so far are read-only.
    """

    def __init__(
        self,
        folder: Path,
        tables: tuple[str, ...],
        check: Callable[[bytes | None], None],
        map_size: int,
        *,
        readonly: bool,
    ) -> None:
        self.folder = folder
        self.readonly = readonly
        self._finished = False
        self._tables = tables
        self._check = check
        self._map_size = map_size
        self._gate = ReadWriteLock()
        self._opened: tuple[lmdb.Environment, dict[str, Table]] | None = None
        self._folder_lock: int | None = None
        self._identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def read(self) -> Iterator[Rows]:
        """Enter a read transaction; yields its rows, whose views end with it."""
        while True:
            with self._use() as (env, tables):
                try:
                    transaction = env.begin(buffers=True)
                except lmdb.MapResizedError:
                    pass
                except lmdb.ReadersFullError:
                    if not env.reader_check():
                        raise StoreError(f"{self.folder} has {env.max_readers()} readers already; close some") from None
                    continue
                else:
                    try:
                        yield Rows(transaction, tables)
                    except lmdb.Error as error:
                        raise self._explained(error) from error
                    finally:
                        transaction.abort()
                    return
            self._remap(lambda _: 0)

    def write(self, change: Callable[[Rows], T]) -> T:
        """Apply a change durably and atomically.

        Args:
            change: Called with the rows of a transaction, again if the map had to be enlarged.

        Raises:
            StoreFullError: If the disk is full.
            StoreError: If writing failed for another reason.
        """
        while True:
            try:
                with self._use() as (env, tables), env.begin(write=True) as transaction:
                    return change(Rows(transaction, tables))
            except lmdb.MapFullError:
                self._remap(lambda size: 2 * size)
            except lmdb.MapResizedError:
                self._remap(lambda _: 0)
            except lmdb.PanicError as error:
                with self._gate.alone():
                    self._close()
                raise StoreError(f"writing to {self.folder} failed; what was stored before is intact") from error
            except (lmdb.Error, OSError) as error:
                raise self._explained(error) from error

    def sizes(self) -> tuple[int, int]:
        """Return the sizes of the data file and of the map in bytes."""
        with self._use() as (env, _):
            return (self.folder / DATA_FILE).stat().st_size, env.info()["map_size"]

    def compact(self) -> str:
        """Return free pages to the disk; returns the reason if that is not possible now, else an empty string."""
        with self._gate.alone():
            self._close()  # an open environment holds the shared lock, and flock cannot upgrade it without releasing it
            lock = lock_folder(self.folder, alone=True)
            if lock is None:
                return "another process has the store open, or the file system has no locks"
            self._folder_lock = lock
            try:
                self._replace_by_copy()
            except (lmdb.Error, OSError) as error:
                return f"the copy failed: {error}"
            finally:
                self._close()
        return ""

    def open(self, *, readonly: bool) -> None:
        """Open the files now instead of on first use; reopen them for writing if only readers had them open so far.

        Raises:
            StoreError: If they cannot be opened.
        """
        with self._gate.alone():
            if self.readonly and not readonly:
                self._close()
                self.readonly = False
                try:
                    self._open()
                except StoreError:
                    self.readonly = True
                    raise
            elif self._opened is None:
                self._open()

    def is_stale(self) -> bool:
        """Return whether the files were deleted or replaced since they were opened."""
        with self._gate.alone():
            return self._opened is not None and self._identity != _identity(self.folder)

    def close(self) -> None:
        """Wait for the transactions of other threads, then close the files permanently."""
        with self._gate.alone():
            self._close()
            self._finished = True

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Keep the files closed in this process while the context is active."""
        with self._gate.alone():
            self._close()
            yield

    def forked(self) -> None:
        """Reset the lock in a forked child, where the threads that held it do not exist."""
        self._gate = ReadWriteLock()

    @contextlib.contextmanager
    def _use(self) -> Iterator[tuple[lmdb.Environment, dict[str, Table]]]:
        while True:
            with self._gate.shared():
                if self._opened is not None:
                    yield self._opened
                    return
            with self._gate.alone():
                if self._finished:
                    raise StoreError(f"{self.folder} was closed by another thread")
                if self._opened is None:
                    self._open()

    def _open(self) -> None:
        self._folder_lock = lock_folder(self.folder, alone=False)
        try:
            self._opened = self._opened_files()
        except (lmdb.Error, OSError) as error:
            self._close()
            raise self._explained(error) from error
        except BaseException:
            self._close()
            raise
        self._identity = _identity(self.folder)

    def _opened_files(self) -> tuple[lmdb.Environment, dict[str, Table]]:
        data = self.folder / DATA_FILE
        if data.exists():
            check_header(data)
        lock = not self.readonly or _lockable(self.folder)
        if not lock:
            logger.warning("%s is read without a lock: no process must write to it in the meantime", self.folder)
        env = lmdb.open(
            str(self.folder),
            map_size=self._map_size,
            readonly=self.readonly,
            create=not self.readonly,
            readahead=False,
            max_dbs=len(self._tables),
            max_readers=_MAX_READERS,
            max_spare_txns=1,
            lock=lock,
        )
        try:
            info, page = env.info(), env.stat()["psize"]
            if data.stat().st_size < (info["last_pgno"] + 1) * page:
                with env.begin():
                    check_complete(data)
            env.reader_check()  # a killed reader would prevent pages from being reused
            tables = self._open_tables(env)
        except BaseException:
            env.close()
            raise
        return env, tables

    def _open_tables(self, env: lmdb.Environment) -> dict[str, Table]:
        first, *rest = self._tables
        while True:
            try:
                with env.begin() as transaction:
                    names = {bytes(name) for name, _ in transaction.cursor()}
                if not names and not self.readonly:
                    with env.begin(write=True) as transaction:
                        return {name: env.open_db(name.encode(), txn=transaction) for name in self._tables}
                if first.encode() not in names:
                    raise StoreError(f"{self.folder} is not an adapter store: its LMDB file has no table {first!r}")
                tables = {first: env.open_db(first.encode(), create=False)}
                with env.begin() as transaction:
                    self._check(transaction.get(b"format", db=tables[first]))
                return tables | {name: env.open_db(name.encode(), create=False) for name in rest}
            except lmdb.MapResizedError:
                env.set_mapsize(0)
            except lmdb.NotFoundError as error:
                raise StoreError(f"{self.folder} is not an adapter store: a table is missing ({error})") from error

    def _remap(self, wanted: Callable[[int], int]) -> None:
        with self._gate.alone():
            if self._opened is None:
                return
            env = self._opened[0]
            size = wanted(env.info()["map_size"])
            try:
                env.set_mapsize(size)
            except lmdb.Error as error:
                self._close()
                raise StoreFullError(f"the map of {self.folder} cannot be enlarged to {size} bytes: {error}") from error
            self._map_size = max(self._map_size, size)

    def _replace_by_copy(self) -> None:
        for left in self.folder.glob(COMPACTING + "*"):
            shutil.rmtree(left)
        beside = self.folder / f"{COMPACTING}{uuid.uuid4().hex}"
        beside.mkdir()
        try:
            env, _ = self._opened_files()
            try:
                env.copy(str(beside), compact=True)
            finally:
                env.close()
            copy = beside / DATA_FILE
            copy.chmod((self.folder / DATA_FILE).stat().st_mode & 0o777)
            sync(copy)
            copy.replace(self.folder / DATA_FILE)
            sync(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None

    def _explained(self, error: Exception) -> Exception:
        code = error.code if isinstance(error, lmdb.Error) else getattr(error, "errno", 0)
        if code in _NO_ROOM:
            return StoreFullError(
                f"the disk or quota of {self.folder} is full, or the disk fails ({error}). What was stored before is "
                "intact; free some space and repeat the last call."
            )
        if code in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return StoreError(f"{self.folder} cannot be written ({error}); open it with readonly=True")
        return StoreError(f"{self.folder}: {error}")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = (folder / DATA_FILE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lockable(folder: Path) -> bool:
    """Return whether readers can register; on a read-only medium they cannot, but no process can write either."""
    lock = folder / LOCK_FILE
    return os.access(lock, os.R_OK | os.W_OK) if lock.exists() else os.access(folder, os.W_OK)
