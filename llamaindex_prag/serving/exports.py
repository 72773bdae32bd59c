"""Folders of merged adapters, for a server to read: named by their content, complete or absent, the oldest deleted.

Several processes may use one root. A folder must outlive its registration in the server and every request that was
accepted under it: vLLM reads it again whenever its own cache has let go of the adapter, and does not survive if it is
gone. So a folder is deleted only after it was unloaded, and `grace` seconds after its last use by any process.
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
    """A root of folders.

    Args:
        root: Made if there is none.
        keep: How many folders stay.
        grace: Seconds since its last use for which a folder stays in any case: longer than any request takes.
    """

    def __init__(self, root: Path, *, keep: int = 64, grace: float = 900.0) -> None:
        if keep < 1 or grace < 0:
            raise ConfigurationError(f"keep is {keep}, grace is {grace}; at least 1, and 0 or more, are needed")
        self.root, self.keep, self.grace = root, keep, grace
        root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / ".lock")

    def write(self, name: str, make: Callable[[], Adapter], base_model_name: str) -> Path:
        """The folder of a name; what is there already is the same, as the content made the name."""
        folder = self.root / name
        with self._lock:
            if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
                export_peft(make(), folder, base_model_name=base_model_name)
            os.utime(folder)
        return folder

    def touch(self, name: str) -> None:
        """Note that a folder is used; one that somebody deleted is written again when it is next needed."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.root / name)

    def names(self) -> list[str]:
        """All folders, the least recently used first."""
        found = [(p.stat().st_mtime, p.name) for p in self.root.iterdir() if (p / CONFIG).is_file()]
        return [name for _, name in sorted(found) if not name.startswith(".")]

    def delete_old(self, registered: Callable[[], Collection[str]]) -> list[str]:
        """Delete what is beyond `keep`, oldest first, as far as it is neither registered nor was used lately.

        Args:
            registered: Asks which names the server knows; called only if there is something to delete.

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
