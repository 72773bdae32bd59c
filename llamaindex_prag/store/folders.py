"""Folders on disk: locks between processes, and what is written there made durable."""

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
    """A file descriptor that holds a lock on the folder until it is closed; it ends with the process in any case.

    Args:
        folder: Any folder that can be read; nothing is written to it.
        alone: Whether no other holder is tolerated. If there is one, the answer is None at once; without `alone`,
            the call waits for whoever is alone.

    Returns:
        None also where folders cannot be locked (Windows, some network file systems).
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
    """Flush a file, or the names in a folder, to the disk."""
    with contextlib.suppress(PermissionError):  # Windows cannot open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, in the place of what was there: it appears completely or not at all.

    A process that is killed between two renamings leaves both folders, complete, under hidden names beside it.

    Args:
        folder: A new folder, an empty one, or one that holds the first of the files.
        files: Content by name.

    Raises:
        FileExistsError: If something else is in the folder.
        OSError: If it cannot be written.
    """
    first = next(iter(files))
    if folder.exists() and not (folder / first).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and holds no {first}; name a new folder")
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
