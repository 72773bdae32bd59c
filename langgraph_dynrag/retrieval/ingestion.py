"""Bringing an index in line with files: what is known costs nothing, what is new is cut, embedded and noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from langgraph_dynrag.retrieval.files import Splitter, as_document
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.cache_folder import sha256, write_json
from rag_backbone.documents import Findings, Found, FoundFile, Note, ReadDocument, Skipped, read_file

_SAVE_EVERY = 2.0  # seconds: the manifest names every chunk, so writing it after each of many files would be quadratic

_ADD_EVERY = 1024  # chunks: a file may hold more than fits into memory


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
        encoding: Of files that are not UTF-8 and have no byte-order mark.
    """

    def __init__(
        self, store: ChunkStore, splitter: Splitter, manifest_path: Path, manifest: dict[str, Any], root: str,
        encoding: str | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._splitter = splitter
        self._path = manifest_path
        self._manifest = manifest
        self._root = root
        self._encoding = encoding
        self._used = Counter(c for f in manifest["files"].values() for c in set(f["chunks"]))
        self._saved = time.monotonic()
        self.counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "embedded"), 0)
        self.findings = Findings()

    def take(self, found: FoundFile) -> None:
        """Bring the index in line with one file."""
        path = found.path
        key = self._key(found)
        known = self._manifest["files"].get(key)
        try:
            stat = path.stat()
            state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "encoding": self._encoding}
            if known is not None and not known.get("retry") and self._is_known(known, state):
                self._unchanged(found, known)
                return
            state["sha256"] = sha256(path)
        except OSError as error:
            self._cannot_open(found, error, known)
            return
        if known is not None and not known.get("retry") and self._is_known(known, state, "sha256", "encoding"):
            self._unchanged(found, known)
            self._note(key, {**known, **state})  # touched, not changed
            return
        self._read(found, key, state, known)

    def _read(self, found: FoundFile, key: str, state: dict[str, Any], known: Mapping[str, Any] | None) -> None:
        chunks: dict[str, None] = {}
        findings: list[Skipped | Note] = []
        new: list[Document] = []
        for piece in read_file(found.path, found.name, encoding=self._encoding):
            if not isinstance(piece, ReadDocument):
                findings.append(piece)
                continue
            for chunk in self._splitter.split(as_document(piece)):
                if chunk.id is not None and chunk.id not in chunks:
                    chunks[chunk.id] = None
                    if chunk.id not in self._used:
                        new.append(chunk)
            if len(new) >= _ADD_EVERY:
                self._add(new)
                new = []
        self._add(new)
        for finding in findings:
            self.findings.add(finding)
        before = list(known["chunks"]) if known is not None else []
        if before == list(chunks):
            self.counts["unchanged"] += bool(chunks)
        else:
            self.counts["changed" if before else "added"] += 1
        told = {
            "skipped": [f.reason for f in findings if isinstance(f, Skipped)],
            "notes": [f.text for f in findings if isinstance(f, Note)],
            "retry": any(isinstance(f, Skipped) and f.transient for f in findings),
        }
        self._note(key, {**state, "chunks": list(chunks), **{name: value for name, value in told.items() if value}})

    def _add(self, chunks: Sequence[Document]) -> None:
        self._store.add(chunks)
        self.counts["embedded"] += len(chunks)

    def _unchanged(self, found: FoundFile, known: Mapping[str, Any]) -> None:
        """Count a file that is as it was, and repeat what was found when it was read."""
        self.counts["unchanged"] += bool(known["chunks"])
        for reason in known.get("skipped", ()):
            self.findings.add(Skipped(found.name, reason))
        for text in known.get("notes", ()):
            self.findings.add(Note(found.name, text))

    def _cannot_open(self, found: FoundFile, error: OSError, known: Mapping[str, Any] | None) -> None:
        kept = "; what was indexed of it before is kept" if known is not None and known["chunks"] else ""
        reason = f"cannot be read: {error.strerror or error}{kept}"
        self.findings.add(Skipped(found.name, reason, transient=True))

    @staticmethod
    def _is_known(known: Mapping[str, Any], state: Mapping[str, Any], *names: str) -> bool:
        return all(known.get(name) == state[name] for name in names or state)

    def _key(self, found: FoundFile) -> str:
        return f"{self._root}\0{found.name}"

    def remove_missing(self, found: Found) -> None:
        """Forget the source's files that are gone. What lies in folders that cannot be listed is kept."""
        present = {self._key(file) for file in found.files}
        unlisted = tuple(f"{self._root}\0{s.name.removeprefix('./')}" for s in found.skipped if s.transient)
        gone = [k for k in self._manifest["files"] if k.startswith(f"{self._root}\0") and k not in present]
        for key in [k for k in gone if not k.startswith(unlisted)]:
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
