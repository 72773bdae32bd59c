"""A vLLM plugin that merges the adapters of the documents named by a request's model name.

Installed in vLLM's environment, it is found by its entry point (`vllm.general_plugins`) and does nothing until a store
is configured:

    DYNPRAG_STORE            folder or URL of the adapter store; never written to
    DYNPRAG_EXPORTS          folder for merged adapters, writable by no other user; by default a folder in the system's
                             temporary folder
    DYNPRAG_SECRET           secret that names must be signed with (`document_names`); if unset, no signature is needed
    DYNPRAG_EXPORTS_GB       limit on merged adapters in GB, beyond which new document sets are rejected; 20 by default

vLLM needs `--enable-lora`, `--max-lora-rank` of at least documents times rank, and
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`. It does not tell a resolver when it forgets an adapter, reads an adapter's
folder again whenever it has evicted the adapter from its cache, and crashes if the folder is gone. So folders are kept
while the server runs, and the next server deletes the folders of dead ones. Needs numpy, safetensors, lmdb and xxhash,
but neither torch nor LlamaIndex.
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
    """The folders of merged adapters of one running server, under a root that several servers can share.

    Args:
        root: Root folder; folders of dead servers in it are deleted.
        limit: Maximum size of the merged adapters in bytes.

    Raises:
        ConfigurationError: If another user could replace adapters in the root.
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
        """Return the folder of a document set's merged adapter, exporting it if needed.

        Raises:
            AdapterError: If the store lacks a document, or the size limit is reached.
        """
        selection = documents.selection(store.model)
        folder = self.folder / address(store, selection)
        with self._writing:
            if (folder / CONFIG).is_file():
                return folder
            if self._written >= self._limit:
                raise AdapterError(
                    f"merged adapters take {self._written / 1e9:.1f} GB; raise DYNPRAG_EXPORTS_GB, or restart the "
                    "server, which deletes them"
                )
            export_peft(merged(store, selection), folder, base_model_name=base_model)
            self._written += sum(p.stat().st_size for p in folder.iterdir())
        return folder


class DocumentResolver:
    """Maps a request's model name to the folder of a merged adapter; one instance per server process.

    Args:
        store: Opens the store; called at the first request.
        folders: Creates the folders; called at the first request.
        secret: Secret that names must be signed with; None if they need no signature.
    """

    def __init__(
        self, store: Callable[[], MergeableStore], folders: Callable[[], MergedFolders], secret: bytes | None = None
    ) -> None:
        self._open_store, self._open_folders, self._secret = store, folders, secret
        self._opened: tuple[MergeableStore, MergedFolders] | None = None
        self._opening = threading.Lock()

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """Return a `LoRARequest`, or None if the name does not name documents or cannot be served. Called by vLLM."""
        folder = await asyncio.to_thread(self.folder_of, base_model_name, lora_name)
        if folder is None:
            return None
        from vllm.lora.request import LoRARequest

        # vLLM replaces this ID with its own.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))

    def folder_of(self, base_model_name: str, lora_name: str) -> Path | None:
        """Return the folder of a name; None if it does not name documents, or cannot be served, which is logged."""
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
    """Register the resolver. vLLM calls this in each of its processes; nothing is opened before the first request.

    Raises:
        ConfigurationError: If the secret is too short, or the limit is not a number above 0.
    """
    store = os.environ.get("DYNPRAG_STORE")
    if not store:
        return
    secret, limit = checked_secret(os.environ.get("DYNPRAG_SECRET") or None), _limit()
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class Resolver(DocumentResolver, LoRAResolver):  # type: ignore[misc, unused-ignore]
        """`DocumentResolver` with the base class that vLLM requires."""

    LoRAResolverRegistry.register_resolver("dynprag", Resolver(lambda: opened(store), lambda: made(limit), secret))


def opened(store: str) -> MergeableStore:
    """Open the store read-only."""
    from llamaindex_prag.store.opening import open_store

    return open_store(store, model=None, readonly=True)


def made(limit: float) -> MergedFolders:
    """Create the folders where the environment says, for adapters of at most `limit` bytes."""
    root = os.environ.get("DYNPRAG_EXPORTS") or Path(tempfile.gettempdir()) / f"dynprag-{os.getuid()}"
    return MergedFolders(Path(root), limit=limit)


def _limit() -> float:
    given = os.environ.get("DYNPRAG_EXPORTS_GB") or "20"
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise ConfigurationError(f"DYNPRAG_EXPORTS_GB is {given!r}; a number of gigabytes above 0 is needed")
    return limit


def _refuse_unless_own(root: Path) -> None:
    """Check that no other user could replace an adapter in the folder; the default folder's name can be guessed.

    Raises:
        ConfigurationError: If another user could; the message says what to set instead.
    """
    if not hasattr(os, "getuid"):  # not POSIX: every user has a private temporary folder
        return
    found, me = root.stat(), os.getuid()
    instead = f"Set DYNPRAG_EXPORTS to your own folder; it is created if it does not exist, such as {root / 'own'}"
    if {found.st_uid, root.lstat().st_uid} != {me}:  # owner of the folder, and of a link that leads to it
        raise ConfigurationError(
            f"merged adapters would be written to {root}, which belongs to the user {found.st_uid}, not to {me}, and "
            f"could be replaced there. {instead}."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"merged adapters would be written to {root}, where others may write (mode {found.st_mode & 0o777:o}), and "
            f"could be replaced there. {instead}; or remove the permission: chmod go-w {root}"
        )
