"""Which adapters a llama.cpp server has loaded, and for a `LlamaCppServer`, loading those that are missing.

llama.cpp loads adapters when a server starts. A server elsewhere therefore has those it was started with; one in this
process is started again with the missing ones in addition, and without the least recently used if there are too many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llamaindex_prag.serving.llamacpp_client import LlamaCppClient
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.llamacpp_server import LlamaCppServer

_RELOADS = 3
"""Starts per request; if an adapter is missing still, others are loaded in its place faster than it can be used."""


class LoadedElsewhere:
    """The adapters with which a server was started.

    They are asked for with every request, because a server that was started again may have numbered them differently.
    """

    def __init__(self, server: LlamaCppClient) -> None:
        self._server = server

    @contextmanager
    def having(self, wanted: Mapping[str, str]) -> Iterator[dict[str, int]]:
        """Yield the number of each loaded file name; the numbers stay valid while the context lasts.

        Args:
            wanted: File names that have to be loaded, each with a description of the adapter for messages.

        Raises:
            AdapterError: If one is not loaded, and cannot be.
        """
        loaded = self._server.adapters()
        if lacking := [what for name, what in wanted.items() if name not in loaded]:
            raise AdapterError(
                f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not loaded in {self._server.name}, which "
                f"loads adapters only when it starts; loaded: {', '.join(sorted(loaded)) or 'none'}. Write the files "
                "with export_adapters(...) and start the server with --lora FILE for each and "
                "--lora-init-without-apply, or use a LlamaCppServer, which loads adapters when they are needed."
            )
        yield loaded


class LoadedHere:
    """The adapters of a `LlamaCppServer`.

    Args:
        server: The server.
        write: Writes the adapter of a file name, unless its file exists, and returns the file.
        keep: Maximum number of adapters to keep loaded.
    """

    def __init__(self, server: LlamaCppServer, write: Callable[[str], Path], *, keep: int) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep is {keep}; at least 1 is needed")
        self._server, self._write, self._keep = server, write, keep
        self._used: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        """Guards `_used`, which lists names in the order of their last use."""
        self._loading = threading.Lock()

    @contextmanager
    def having(self, wanted: Mapping[str, str]) -> Iterator[dict[str, int]]:
        """Yield the number of each loaded file name; see `LoadedElsewhere`."""
        for _ in range(_RELOADS):
            with self._server.using() as files:
                numbers = {path.name: i for i, path in enumerate(files)}
                if wanted.keys() <= numbers.keys():
                    self._note(wanted)
                    yield numbers
                    return
            self._load(wanted)
        raise AdapterError(
            f"{', '.join(wanted.values())}: other requests replaced these adapters {_RELOADS} times before they could "
            f"be used; keep more loaded (keep={self._keep})"
        )

    def _note(self, names: Mapping[str, str]) -> None:
        with self._lock:
            for name in names:
                self._used[name] = None
                self._used.move_to_end(name)

    def _load(self, wanted: Mapping[str, str]) -> None:
        paths = {path.name: path for path in map(self._write, wanted)}
        with self._loading:
            before = {path.name: path for path in self._server.adapters}
            if wanted.keys() <= before.keys():  # another thread was faster
                return
            self._note(wanted)
            known = {**before, **paths}
            with self._lock:
                oldest = [name for name in before if name not in self._used]
                order = [*oldest, *(name for name in self._used if name in known)]
            # `_lock` is not held: the server waits for running requests, which take it.
            self._server.load([known[name] for name in order[-max(self._keep, len(wanted)) :]])
