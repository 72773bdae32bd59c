"""Bringing an index in line with files: what is known costs nothing, what is new is cut, embedded and noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraph_dynrag.retrieval.files import Splitter, read_documents
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.cache_folder import sha256, write_json

_SAVE_EVERY = 2.0  # seconds: the manifest names every chunk, so writing it after each of many files would be quadratic


class Ingestion:
    """One run over a source's files.

    A chunk is stored before the manifest names it, and deleted after the manifest has stopped naming it; so a run that
    is killed leaves chunks too many, never too few.

    Args:
        store: Where chunks go.
        splitter: Cuts documents into chunks.
        manifest_path: The manifest's file.
        manifest: Its content; changed in place.
        root: The folder that files are named relative to.
    """

    def __init__(
        self, store: ChunkStore, splitter: Splitter, manifest_path: Path, manifest: dict[str, Any], root: str
    ) -> None:
        self._store = store
        self._splitter = splitter
        self._path = manifest_path
        self._manifest = manifest
        self._root = root
        self._used = Counter(c for f in manifest["files"].values() for c in set(f["chunks"]))
        self._saved = time.monotonic()
        self.counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "embedded"), 0)

    def take(self, path: Path) -> None:
        """Bring the index in line with one file."""
        relative = path.resolve().relative_to(self._root).as_posix()
        key = f"{self._root}\0{relative}"
        known = self._manifest["files"].get(key)
        stat = path.stat()
        state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if known is not None and {name: known[name] for name in state} == state:
            self.counts["unchanged"] += 1
            return
        digest = sha256(path)
        if known is not None and known["sha256"] == digest:  # touched, not changed
            self.counts["unchanged"] += 1
            self._note(key, {**known, **state})
            return
        documents = read_documents(path, relative)
        chunks = {c.id: c for d in documents for c in self._splitter.split(d) if c.id is not None}
        new = [chunk for id_, chunk in chunks.items() if id_ not in self._used]
        self._store.add(new)
        self.counts["embedded"] += len(new)
        self.counts["added" if known is None else "changed"] += 1
        self._note(key, {**state, "sha256": digest, "chunks": list(chunks)})

    def remove_missing(self, files: Sequence[Path]) -> None:
        """Forget the source's files that are gone."""
        present = {f"{self._root}\0{p.resolve().relative_to(self._root).as_posix()}" for p in files}
        for key in [k for k in self._manifest["files"] if k.startswith(f"{self._root}\0") and k not in present]:
            self._used.subtract(set(self._manifest["files"].pop(key)["chunks"]))
            self.counts["removed"] += 1

    def forget_all(self, settings: dict[str, Any]) -> None:
        """Begin anew with other settings: everything was cut or embedded in another way."""
        self._manifest["settings"] = settings
        self._store.clear()
        self._manifest["files"] = {}
        self._used.clear()

    def save(self) -> None:
        """Write the manifest, then delete the chunks that no file has any more."""
        write_json(self._path, self._manifest)
        unused = [c for c, count in self._used.items() if count <= 0]
        self._store.delete(unused)
        for chunk in unused:
            del self._used[chunk]
        self._saved = time.monotonic()

    def _note(self, key: str, state: dict[str, Any]) -> None:
        before = self._manifest["files"].get(key, {"chunks": ()})
        self._used.update(set(state["chunks"]))
        self._used.subtract(set(before["chunks"]))
        self._manifest["files"][key] = state
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save()
