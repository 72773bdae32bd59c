"""Tracks which adapters a server has loaded for this process.

Adapters are loaded on demand, loaded again if the server has lost them, and unloaded least recently used first. The
server's state is remembered, not queried each time, so it can be outdated: the server may have been restarted, or
another process may have unloaded the adapter. A request then fails because no model has that name; the caller reports
this with `lost` and tries again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.serving.exports import ExportFolders
from llamaindex_prag.serving.lora_server import LoraServer


class LoadedAdapters:
    """The adapters loaded in one server. Thread-safe.

    Args:
        server: The server that loads the adapters.
        folders: Folders to which adapters are exported.
        base_model_name: Name of the base model, written into the folders.
        server_root: Path of the folders' root as the server sees it; None if it is the same as in this process.
    """

    def __init__(
        self, server: LoraServer, folders: ExportFolders, *, base_model_name: str, server_root: str | None = None
    ) -> None:
        self._server, self._folders, self._base = server, folders, base_model_name
        self._root = server_root
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._uses: dict[str, int] = {}
        self._lock = threading.RLock()
        self._loading: dict[str, threading.Lock] = {}

    @contextmanager
    def using(self, name: str, make: Callable[[], Adapter]) -> Iterator[str]:
        """Load an adapter, yield its name, and keep it loaded while the context lasts.

        Another process may still unload it; see `lost`.

        Args:
            name: Name derived from the adapter's content.
            make: Merges the adapter; called only if its folder does not exist.
        """
        with self._lock:
            self._uses[name] = self._uses.get(name, 0) + 1
            loading = self._loading.setdefault(name, threading.Lock())
        try:
            with loading:
                self._load(name, make)
            yield name
        finally:
            with self._lock:
                self._uses[name] -= 1
                if not self._uses[name]:
                    del self._uses[name], self._loading[name]
                    if name in self._loaded:
                        self._folders.touch(name)

    def lost(self, name: str) -> None:
        """Record that the server does not know the name, so that it is loaded again at its next use."""
        with self._lock:
            self._loaded.pop(name, None)

    def _load(self, name: str, make: Callable[[], Adapter]) -> None:
        with self._lock:
            known = name in self._loaded
            if known:
                self._loaded.move_to_end(name)
        folder = self._folders.write(name, make, self._base)  # also if the folder was deleted by hand
        if known:
            return
        seen = folder.resolve() if self._root is None else PurePosixPath(self._root) / name
        self._server.load(name, str(seen))
        with self._lock:
            self._loaded[name] = None
            idle = [n for n in self._loaded if n not in self._uses]
            gone = idle[: max(len(self._loaded) - self._folders.keep, 0)]
            for old in gone:
                del self._loaded[old]
        for old in gone:
            self._server.unload(old)
        self._folders.delete_old(self._server.adapters)

    def __len__(self) -> int:
        return len(self._loaded)

    def __repr__(self) -> str:
        return f"LoadedAdapters({len(self)} of {self._folders.keep} in {self._server!r})"
