"""Share a folder of Chroma's files between threads, indexes and processes.

Chroma keeps its vector index in memory and does not notice writes by other processes. A version file therefore
indicates when the folder has changed, and the connection is reopened before the next use. A read-only folder is first
copied to a temporary one, because Chroma writes when it opens a folder. Chroma's errors are converted to
`IndexFolderError`. Knows nothing about documents or manifests.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from filelock import FileLock

from rag_backbone.errors import DynPragError, IndexFolderError

logger = logging.getLogger(__name__)

FileState = tuple[int, ...] | None
_T = TypeVar("_T")

_NAME = "documents"
_DATABASE = "chroma.sqlite3"
_LOCK = "chroma.lock"
_CONFIGURATION: dict[str, Any] = {"hnsw": {"space": "cosine"}}
_SYNC_THRESHOLD = 1000  # Chroma's default: operations after which its vector index is written to disk
_BATCH = 100
_COPIES = 20  # attempts at a copy without a concurrent write


def file_state(path: Path) -> FileState:
    """Return a value that differs between versions of a file (inode, size, times), or None if there is no file."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def is_writable(folder: Path) -> bool:
    """Return whether this process may change an index folder, or create it."""
    needed = [folder, folder / "chroma", folder / "chroma" / _DATABASE, folder / _LOCK]
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK) and all(os.access(p, os.W_OK) for p in needed if p.exists())


class ChromaFolder:
    """One process's connection to the Chroma files of an index. Thread-safe; obtain it from `ChromaFolder.of`.

    Args:
        index_folder: The index's folder; Chroma's files are in its subfolder `chroma`.
        version_file: A file that changes whenever the content changes.
    """

    _known: ClassVar[weakref.WeakValueDictionary[Path, ChromaFolder]] = weakref.WeakValueDictionary()
    _knowing = threading.Lock()

    def __init__(self, index_folder: Path, version_file: Path) -> None:
        self._index_folder = index_folder
        self._folder = index_folder / "chroma"
        self._version_file = version_file
        self._lock = threading.RLock()
        self._file_lock = FileLock(index_folder / _LOCK)
        self._release: Callable[[], Any] | None = None
        self._collection: Any = None
        self._seen: FileState = None
        self._spelling = 0

    @classmethod
    def of(cls, index_folder: Path, version_file: Path) -> ChromaFolder:
        """Return this process's connection to an index; all users of an index share one."""
        index_folder = index_folder.resolve()
        with cls._knowing:
            known = cls._known.get(index_folder)
            if known is None:
                known = cls._known[index_folder] = cls(index_folder, version_file.resolve())
            return known

    def exists(self) -> bool:
        """Return whether the folder contains a database."""
        return (self._folder / _DATABASE).is_file()

    def read(self, query: Callable[[Any], _T]) -> _T:
        """Return `query(collection)`, run on the current content of the folder.

        Raises:
            IndexFolderError: If the folder is missing or damaged.
        """
        with self._lock:
            current = file_state(self._version_file)
            if self._collection is not None and current == self._seen:
                # A concurrent deletion by another process can make a query fail; the second attempt sees its result.
                with contextlib.suppress(IndexFolderError), self._translated("read"):
                    return query(self._collection)
            with self._guarded(), self._translated("read"):
                if not self.exists():
                    raise IndexFolderError(f"{self._folder} holds no database; {self._advice()}")
                self._reopen(file_state(self._version_file))
                # Chroma loads its vector index at the first query, which must not overlap another process's write.
                return query(self._collection)

    def write(self, change: Callable[[Any], _T]) -> _T:
        """Return `change(collection)`; the folder is created if it does not exist.

        Raises:
            IndexFolderError: If the folder is damaged or read-only, or the disk is full.
        """
        with self._lock, self._translated("written"), self._guarded():
            current = file_state(self._version_file)
            if self._collection is None or current != self._seen:
                self._reopen(current)
            return change(self._collection)

    def written(self, manifest: object) -> None:  # noqa: ARG002 - a server records it
        """Record that this process changed the version file, so that the connection is not reopened for it."""
        with self._lock:
            self._seen = file_state(self._version_file)

    def clear(self) -> None:
        """Remove everything, even if the folder is damaged."""
        with self._lock, self._translated("written"), self._guarded():
            self._close()
            if self._folder.exists():
                shutil.rmtree(self._folder)

    def erase(self) -> None:
        """Erase the texts of deleted documents from Chroma's files.

        Chroma keeps them in its log and in free pages of its database. A small folder is rewritten from the remaining
        chunks; in a larger one the log is truncated and the database compacted.
        """
        count = self.write(lambda collection: int(collection.count()))
        if not count:
            self.clear()
            return
        with self._lock, self._translated("written"), self._guarded():
            if count < _SYNC_THRESHOLD - _BATCH:
                self._write_again()
                return
            # The log reaches back to the last write of the vector index to disk, so force such a write.
            some = self._collection.get(limit=1, include=["embeddings"])["embeddings"]
            self._collection.modify(configuration={"hnsw": {"sync_threshold": 2}})
            self._reopen(self._seen)  # the threshold is read when the folder is opened
            for _ in range(2):
                self._collection.upsert(ids=["erase"], embeddings=some, documents=[""])
                self._collection.delete(ids=["erase"])
            self._collection.modify(configuration={"hnsw": {"sync_threshold": _SYNC_THRESHOLD}})
            self._close()
            with contextlib.closing(sqlite3.connect(self._folder / _DATABASE)) as database:
                database.execute("VACUUM")

    def incomplete(self, missing: str) -> IndexFolderError:
        """Return the error for vectors that the manifest names and the folder does not have."""
        return IndexFolderError(f"{missing} in {self._index_folder} are missing; delete it and index again")

    def _write_again(self) -> None:
        rows = self._collection.get(include=["embeddings", "documents", "metadatas"])
        parts = {name: rows[name] for name in ("ids", "embeddings", "documents", "metadatas")}
        self._close()
        new, old = (self._folder.with_name(f"chroma-{name}") for name in ("new", "old"))
        _discard(new)
        _discard(old)
        collection, close = _connect(new, self._spelling)
        try:
            for start in range(0, len(rows["ids"]), _BATCH):
                collection.upsert(**{name: part[start : start + _BATCH] for name, part in parts.items()})
        finally:
            close()
        self._folder.rename(old)
        new.rename(self._folder)
        _discard(old)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChromaFolder.of, (self._index_folder, self._version_file)

    # ------------------------------------------------------------------ helpers

    def _reopen(self, state: FileState) -> None:
        self._close()
        copy = None if is_writable(self._index_folder) else self._copy()
        try:
            self._collection, close = _connect(copy or self._folder, self._spelling)
        except BaseException:
            # Chroma caches the failed client under the folder's path and would return it the next time.
            self._spelling += 1
            _discard(copy)
            raise
        self._release = weakref.finalize(self, _release, close, copy)
        self._seen = state

    def _close(self) -> None:
        self._collection, self._seen = None, None
        if self._release is not None:
            self._release()
            self._release = None

    def _copy(self) -> Path:
        """Copy the files to a temporary folder; repeat if one of them changed in the meantime."""
        for attempt in range(_COPIES):
            before = _states(self._folder)
            target = Path(tempfile.mkdtemp(prefix="dynprag-index-"))
            with contextlib.suppress(FileNotFoundError):  # a file was removed during the copy
                for path in map(Path, before):
                    copied = target / path.relative_to(self._folder)
                    copied.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copied)  # without its mode: the copy must be writable
            if before == _states(self._folder):
                logger.info("%s is read-only; searching a copy of it in %s", self._folder, target)
                return target
            _discard(target)
            time.sleep(0.05 * (attempt + 1))
        raise IndexFolderError(f"{self._folder} is being written by another process; try again when that is finished")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Hold the file lock against other processes during a write or an opening, unless the folder is read-only."""
        if not is_writable(self._index_folder):
            yield
            return
        self._index_folder.mkdir(parents=True, exist_ok=True)
        with self._file_lock:
            yield

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except DynPragError:
            raise
        except BaseException as error:
            # Chroma's errors are plain exceptions; a panic of its Rust core derives directly from BaseException.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self._close()
            raise IndexFolderError(f"{self._folder} cannot be {verb}: {error}; {self._advice(error)}") from error

    def _advice(self, error: BaseException | None = None) -> str:
        text = str(error).lower()
        if "dimension" in text:
            return "the index was built with other embeddings; open it with those, or index again with these"
        if "full" in text or "no space" in text or "file too large" in text:
            return "free space on that disk and try again"
        if "readonly" in text or isinstance(error, PermissionError) or not is_writable(self._index_folder):
            return "it can be searched, but not written: give this user write permission, or use another folder"
        return f"if it is damaged, delete {self._index_folder} and index again"


def _connect(folder: Path, spelling: int = 0) -> tuple[Any, Callable[[], None]]:
    """Open a folder; another spelling of its path makes Chroma treat it as not opened before."""
    import chromadb

    name = str(folder) + f"{os.sep}." * spelling
    client = chromadb.PersistentClient(name, settings=chromadb.Settings(anonymized_telemetry=False))
    collection = client.get_or_create_collection(_NAME, embedding_function=None, configuration=_CONFIGURATION)
    return collection, client.close


def _release(close: Callable[[], None], copy: Path | None) -> None:
    close()
    _discard(copy)


def _discard(copy: Path | None) -> None:
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)


def _states(folder: Path) -> dict[str, FileState]:
    return {str(p): file_state(p) for p in sorted(folder.rglob("*")) if p.is_file()}
