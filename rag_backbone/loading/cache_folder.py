"""Folders that are built once, atomically, even if several processes ask for them at the same time.

A folder is built next to its final location, described by a manifest of its files, and renamed into place. A process
that finds a complete folder never writes and never locks, so a read-only cache that is already filled works. Knows
nothing of models.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat as stat_module
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from rag_backbone.errors import CacheFolderError, IntegrityError

logger = logging.getLogger(__name__)

MANIFEST = "dynprag-manifest.json"
_ENV = "DYNPRAG_CACHE"


def cache_root() -> Path:
    """Return the folder for everything dynprag fetches or builds: `$DYNPRAG_CACHE` or the user's cache folder."""
    return Path(os.environ.get(_ENV) or user_cache_path("dynprag")).expanduser()


def built_folder(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, first building it with `build(empty_folder)` unless it exists and is sound.

    Args:
        target: The final folder.
        build: Fills the folder that it is given. It is called in one process at a time.

    Raises:
        CacheFolderError: If the folder has to be built but cannot be written.
    """
    if is_sound(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if is_sound(target):  # another process was faster
                return target
            _build_and_publish(target, build)
    except OSError as error:
        raise _explained(error, target) from error
    return target


def is_sound(folder: Path) -> bool:
    """Return whether every file of the manifest exists and is unchanged.

    A file with the recorded size and modification time is taken as unchanged. If only the time differs, the file is
    hashed again, so that a touched file passes and a damaged one does not.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        for name, known in files.items():
            stat = (folder / name).stat()
            if stat.st_size != known["size"]:
                logger.warning("%s has %d bytes, expected %d", folder / name, stat.st_size, known["size"])
                return False
            if stat.st_mtime_ns != known["mtime_ns"] and sha256(folder / name) != known["sha256"]:
                logger.warning("%s does not match its checksum", folder / name)
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Raise `IntegrityError` unless the file has the expected SHA-256."""
    if (found := sha256(path)) != expected:
        raise IntegrityError(
            f"{what} is damaged or not the published one: its SHA-256 is {found}, expected {expected}. "
            f"Nothing was kept; try again, or check your package index."
        )


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it replaces `path`, otherwise it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _build_and_publish(target: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        folder = Path(temporary) / "folder"
        folder.mkdir()
        build(folder)
        files = {}
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        (folder / MANIFEST).touch()
        mode = stat_module.S_IMODE((folder / MANIFEST).stat().st_mode)
        for path in paths:
            # safetensors writes with mode 0600, which would hide a shared cache from other users
            path.chmod(mode)
            stat = path.stat()
            files[path.relative_to(folder).as_posix()] = {
                "size": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "sha256": sha256(path),
            }
        (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), "utf-8")
        if target.exists():  # damaged, or left incomplete by another program
            logger.warning("rebuilding %s, which is incomplete or damaged", target)
            shutil.rmtree(target)
        folder.replace(target)


def _explained(error: OSError, target: Path) -> OSError:
    reasons = {
        errno.EACCES: "it is not writable",
        errno.EPERM: "it is not writable",
        errno.EROFS: "it is on a read-only file system",
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EEXIST: "a file already exists at that path",
    }
    if error.errno not in reasons:
        return error
    return CacheFolderError(
        f"{target} cannot be built: {reasons[error.errno]} ({error}). "
        f"Set {_ENV} to a writable folder on a disk with enough space."
    )
