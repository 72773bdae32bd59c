"""Which adapters a server has loaded for this process.

They are loaded at need, loaded again when they are lost, and the least recently used ones unloaded. What the server was
last told is remembered, not asked each time. It may be wrong: a server was started anew, or another process has
unloaded the adapter. Then a request finds no model of that name; its sender says so (`lost`), and asks again.
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
    """The adapters of one server; threads may share it.

    Args:
        server: Where they are loaded.
        folders: Where they are exported to.
        base_model_name: Written into the folders.
        server_root: How the server sees the folders' root; None: as this process does.
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
        """The name, loaded and not unloaded by this process for as long as the context lasts.

        Args:
            name: Of the content.
            make: Merges the adapter, if its folder is not there.
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
        """The server does not know the name: it is loaded again when it is next used."""
        with self._lock:
            self._loaded.pop(name, None)

    def _load(self, name: str, make: Callable[[], Adapter]) -> None:
        with self._lock:
            known = name in self._loaded
            if known:
                self._loaded.move_to_end(name)
        folder = self._folders.write(name, make, self._base)  # also where it was deleted by hand
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
