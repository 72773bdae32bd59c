"""A folder of objects that were read from a server, within a number of bytes; several processes may share it.

An object's file is named by the SHA-256 of its content and is checked when it is read; a damaged one is deleted. Files
are written beside and renamed. The files that were used longest ago are deleted first.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from rag_backbone.errors import ConfigurationError

logger = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"


class DiskCache:
    """Objects by digest.

    Args:
        folder: Created if it does not exist.
        budget: Limit in bytes; 0: nothing is kept.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        if budget < 0:
            raise ConfigurationError(f"cache_bytes is {budget}; it must be at least 0")
        self.folder, self.budget = folder, budget

    def read(self, digest: str) -> bytes | None:
        """Return an object's content, or None if it is not here or damaged."""
        path = self.folder / digest
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            logger.warning("%s is damaged; it is deleted and read from the store again", path)
            self.discard(digest)
            return None
        with contextlib.suppress(OSError):  # another process may have deleted it
            os.utime(path)
        return content

    def write(self, digest: str, content: bytes) -> None:
        """Keep an object; one that is larger than the budget is not kept. A full disk is logged, and is no error."""
        if len(content) > self.budget:
            return
        beside = self.folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(content))
            beside.write_bytes(content)
            beside.replace(self.folder / digest)
        except OSError as error:
            logger.warning("%s cannot be written, so objects are read from the store each time: %s", self.folder, error)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    def discard(self, digest: str) -> None:
        """Delete an object, if it is here."""
        with contextlib.suppress(OSError):
            (self.folder / digest).unlink(missing_ok=True)

    def size(self) -> int:
        """Return the number of bytes of all objects."""
        return sum(size for _, size, _ in self._files())

    def _make_room(self, wanted: int) -> None:
        """Delete the files that were used longest ago until `wanted` bytes fit."""
        files = self._files()
        excess = sum(size for _, size, _ in files) + wanted - self.budget
        if excess <= 0:
            return
        with contextlib.suppress(Timeout), FileLock(self.folder / ".lock", timeout=10):
            files = sorted(self._files())
            excess = sum(size for _, size, _ in files) + wanted - self.budget
            for _, size, path in files:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, size and path of each file; those of writers that died count, and go first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name == ".lock":
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found
