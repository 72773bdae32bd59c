"""Folders of merged adapters for a server to read: named by content, written atomically, deleted oldest first.

Several processes can use one root. A folder must outlive its registration in the server and every request accepted
under it: vLLM reads it again whenever it has evicted the adapter from its own cache, and crashes if the folder is gone.
So a folder is deleted only after it was unloaded, and `grace` seconds after its last use by any process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from filelock import FileLock

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.store.peft_folder import CONFIG, WEIGHTS, export_peft
from rag_backbone.errors import ConfigurationError


class ExportFolders:
    """The folders of merged adapters under one root.

    Args:
        root: Root folder; created if it does not exist.
        keep: Number of folders to keep.
        grace: Seconds for which a folder is kept after its last use in any case; must be longer than any request takes.
    """

    def __init__(self, root: Path, *, keep: int = 64, grace: float = 900.0) -> None:
        if keep < 1 or grace < 0:
            raise ConfigurationError(f"keep is {keep} and grace is {grace}; they must be at least 1 and at least 0")
        self.root, self.keep, self.grace = root, keep, grace
        root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / ".lock")

    def write(self, name: str, make: Callable[[], Adapter], base_model_name: str) -> Path:
        """Return the folder of a name, exporting the adapter if needed; the name identifies the content.

        Args:
            name: Name derived from the adapter's content.
            make: Merges the adapter; called only if the folder does not exist or is incomplete.
            base_model_name: Name of the base model, written into the folder.
        """
        folder = self.root / name
        with self._lock:
            if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
                export_peft(make(), folder, base_model_name=base_model_name)
            os.utime(folder)
        return folder

    def touch(self, name: str) -> None:
        """Record that a folder was used; does nothing if the folder was deleted."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.root / name)

    def names(self) -> list[str]:
        """Return the names of all folders, least recently used first."""
        found = [(p.stat().st_mtime, p.name) for p in self.root.iterdir() if (p / CONFIG).is_file()]
        return [name for _, name in sorted(found) if not name.startswith(".")]

    def delete_old(self, registered: Callable[[], Collection[str]]) -> list[str]:
        """Delete the oldest folders in excess of `keep`, except registered and recently used ones.

        Args:
            registered: Returns the names that the server knows; called only if there is something to delete.

        Returns:
            The deleted names.
        """
        with self._lock:
            extra = self.names()[: -self.keep]
            old = [name for name in extra if time.time() - (self.root / name).stat().st_mtime > self.grace]
            known = set(registered()) if old else set()
            gone = [name for name in old if name not in known]
            for name in gone:
                aside = (self.root / name).rename(self.root / f".{name}-{uuid.uuid4().hex}")
                shutil.rmtree(aside, ignore_errors=True)
        return gone
