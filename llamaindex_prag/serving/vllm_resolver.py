"""A vLLM plugin: a request whose model name stands for documents has the server merge their adapters by itself.

Installed beside vLLM, it is found by its entry point (`vllm.general_plugins`) and does nothing until a store is named:

    DYNPRAG_STORE            the folder of the adapters' store; only ever read
    DYNPRAG_EXPORTS          where merged adapters are written, a folder that nobody else may write to; by default one
                             in the system's temporary folder
    DYNPRAG_SECRET           names have to be signed by it (`document_names`); unset: they need not
    DYNPRAG_EXPORTS_GB       refuse further document sets beyond so many GB of merged adapters; 20 by default

vLLM wants `--enable-lora`, `--max-lora-rank` of at least documents times rank, and
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`. It does not tell a resolver when an adapter is forgotten, reads its folder
again whenever its cache has let go of it, and dies if it is gone; so folders stay for as long as the server runs, and
those that a server left behind are deleted by the next. Needs numpy, safetensors, lmdb and xxhash; neither torch nor
LlamaIndex.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.serving.document_names import PREFIX, DocumentSet, checked_secret
from llamaindex_prag.serving.merging import address, merged
from llamaindex_prag.store.folders import lock_folder
from llamaindex_prag.store.peft_folder import CONFIG, export_peft
from rag_backbone.errors import AdapterError, ConfigurationError

logger = logging.getLogger("vllm.dynprag")


class MergedFolders:
    """The folders of one server's life, under a root that several servers may share.

    Args:
        root: Where; what dead servers left there is deleted.
        limit: Bytes of merged adapters.

    Raises:
        ConfigurationError: If somebody else could put other adapters there.
    """

    def __init__(self, root: Path, *, limit: float) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_unless_own(root)
        for old in root.glob("server-*"):
            if (descriptor := lock_folder(old, alone=True)) is not None:  # its server is gone
                os.close(descriptor)
                shutil.rmtree(old, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix="server-", dir=root))
        self._lock = lock_folder(self.folder, alone=False)  # held until this process ends
        self._limit, self._written = limit, 0
        self._writing = threading.Lock()

    def folder_of(self, store: MergeableStore, documents: DocumentSet, base_model: str) -> Path:
        """The folder of a document set's merged adapter.

        Raises:
            AdapterError: If the store lacks a document, or there is no room for another set.
        """
        selection = documents.selection(store.model)
        folder = self.folder / address(store, selection)
        with self._writing:
            if (folder / CONFIG).is_file():
                return folder
            if self._written >= self._limit:
                raise AdapterError(
                    f"merged adapters take {self._written / 1e9:.1f} GB; raise DYNPRAG_EXPORTS_GB, or start the server "
                    "anew, which deletes them"
                )
            export_peft(merged(store, selection), folder, base_model_name=base_model)
            self._written += sum(p.stat().st_size for p in folder.iterdir())
        return folder


class DocumentResolver:
    """From a request's model name to a folder; one for each server process.

    Args:
        store: Opens the store; called at the first request.
        folders: Makes the folders; likewise.
        secret: By which names have to be signed.
    """

    def __init__(
        self, store: Callable[[], MergeableStore], folders: Callable[[], MergedFolders], secret: bytes | None = None
    ) -> None:
        self._open_store, self._open_folders, self._secret = store, folders, secret
        self._opened: tuple[MergeableStore, MergedFolders] | None = None
        self._opening = threading.Lock()

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """Called by vLLM: a `LoRARequest`, or None where the name is none of ours or cannot be served."""
        folder = await asyncio.to_thread(self.folder_of, base_model_name, lora_name)
        if folder is None:
            return None
        from vllm.lora.request import LoRARequest

        # vLLM puts its own number in the place of this one.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))

    def folder_of(self, base_model_name: str, lora_name: str) -> Path | None:
        """The folder; None, and a line in the log, where the name cannot be served."""
        if not lora_name.startswith(PREFIX):
            return None
        try:
            documents = DocumentSet.parse(lora_name, self._secret)
            store, folders = self._ready()
            return folders.folder_of(store, documents, base_model_name)
        except (AdapterError, ConfigurationError, OSError) as error:
            logger.warning("document set %s... cannot be served: %s", lora_name[:24], error)
            return None

    def _ready(self) -> tuple[MergeableStore, MergedFolders]:
        with self._opening:
            if self._opened is None:
                self._opened = self._open_store(), self._open_folders()
            return self._opened


def register() -> None:
    """Called by vLLM in each of its processes: cheap, and nothing is opened before the first request."""
    store = os.environ.get("DYNPRAG_STORE")
    if not store:
        return
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class Resolver(DocumentResolver, LoRAResolver):  # type: ignore[misc, unused-ignore]
        """`DocumentResolver` as vLLM wants it."""

    secret = checked_secret(os.environ.get("DYNPRAG_SECRET") or None)
    LoRAResolverRegistry.register_resolver("dynprag", Resolver(lambda: opened(store), made, secret))


def opened(store: str) -> MergeableStore:
    """The store, read-only."""
    from llamaindex_prag.store.lmdb_store import LMDBStore

    return LMDBStore(store, model=None, readonly=True)


def made() -> MergedFolders:
    """The folders that the environment names."""
    root = os.environ.get("DYNPRAG_EXPORTS") or Path(tempfile.gettempdir()) / f"dynprag-{os.getuid()}"
    return MergedFolders(Path(root), limit=float(os.environ.get("DYNPRAG_EXPORTS_GB") or 20) * 1e9)


def _refuse_unless_own(root: Path) -> None:
    """Refuse a folder in which somebody else could replace an adapter: the default one has a name that can be guessed.

    Raises:
        ConfigurationError: Saying what to set instead.
    """
    if not hasattr(os, "getuid"):  # no POSIX: a user's temporary folder is the user's own
        return
    found, me = root.stat(), os.getuid()
    instead = f"Set DYNPRAG_EXPORTS to a folder of your own; one that is not there yet, such as {root / 'own'}, is made"
    if {found.st_uid, root.lstat().st_uid} != {me}:  # the folder's, and a link's that leads to it
        raise ConfigurationError(
            f"merged adapters would be written to {root}, which belongs to the user {found.st_uid}, not to {me}, and "
            f"could be replaced there. {instead}."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"merged adapters would be written to {root}, where others may write (mode {found.st_mode & 0o777:o}), and "
            f"could be replaced there. {instead}; or take the right away: chmod go-w {root}"
        )
