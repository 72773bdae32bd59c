"""Folders on disk: locks between processes, and durable writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCKS_FOLDERS = sys.platform != "win32"


def lock_folder(folder: Path, *, alone: bool) -> int | None:
    """Lock a folder and return a file descriptor that holds the lock until it is closed or the process ends.

    Args:
        folder: Any readable folder; nothing is written to it.
        alone: Whether the lock is exclusive. An exclusive call returns None at once if there is another holder; a
            shared call waits until an exclusive holder releases the lock.

    Returns:
        The descriptor, or None where folders cannot be locked (Windows, some network file systems).
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    with contextlib.suppress(PermissionError):  # Windows cannot open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder atomically, replacing what it held.

    A process that is killed between the two renames leaves both folders, complete, under hidden names next to it.

    Args:
        folder: A new or empty folder, or one that already contains the first of the files.
        files: File contents by name.

    Raises:
        FileExistsError: If the folder holds something else.
        OSError: If the folder cannot be written.
    """
    first = next(iter(files))
    if folder.exists() and not (folder / first).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and holds no {first}; name a new folder")
    beside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        beside.mkdir(parents=True)
        for name, content in files.items():
            (beside / name).write_bytes(content)
            sync(beside / name)
        sync(beside)
        if folder.exists():
            old = folder.rename(folder.with_name(f".{folder.name}-{uuid.uuid4().hex}"))
            try:
                beside.rename(folder)
            except BaseException:
                old.rename(folder)
                raise
            shutil.rmtree(old)
        else:
            beside.rename(folder)
        sync(folder.absolute().parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
