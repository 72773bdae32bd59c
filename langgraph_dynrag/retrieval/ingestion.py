"""Apply one change to an index: skip known content, split, embed and record new content, remove missing content.

A chunk is stored before the manifest names it, and deleted after the manifest no longer names it. A run that is killed
therefore leaves surplus chunks, never missing ones, and the next run deletes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from langgraph_dynrag.retrieval.chunking import CHUNKING_VERSION
from langgraph_dynrag.retrieval.files import Splitter, as_document
from langgraph_dynrag.retrieval.manifest import Manifest, file_key, file_path, touch
from langgraph_dynrag.retrieval.sources import under
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.documents import Findings, Found, FoundFile, Note, ReadDocument, Skipped, read_file
from rag_backbone.loading.cache_folder import sha256, write_json
from rag_backbone.text.unicode import clean_name

READER = 2
"""Incremented whenever the way files are read changes, so that they are read again."""

logger = logging.getLogger(__name__)

_SAVE_EVERY = 2.0  # seconds; the manifest names every chunk, so writing it after each file would be quadratic
_ADD_EVERY = 1024  # chunks; a file may hold more than fits into memory
_REEMBEDDING = "reembedding.json"


class Ingestion:
    """A change to an index by the process that holds its lock.

    Args:
        folder: The index's folder.
        store: The store for the chunks.
        splitter: Splits documents into chunks.
        manifest: The index's manifest; changed in place.
    """

    def __init__(self, folder: Path, store: ChunkStore, splitter: Splitter, manifest: Manifest) -> None:
        self._folder = folder
        self._store = store
        self._splitter = splitter
        self._cut = {**asdict(splitter), "version": CHUNKING_VERSION}
        self.manifest = manifest
        self._used: Counter[str] = manifest.used()
        self._saved = time.monotonic()
        self.counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "embedded"), 0)
        self.findings = Findings()

    def repair(self, *, unfinished: bool) -> None:
        """Delete chunks that the manifest does not name, and mark entries with missing chunks to be read again."""
        if not unfinished and self._store.count() == len(self._used):
            return
        stored = self._store.ids()
        self._store.delete(stored - set(self._used))
        missing = set(self._used) - stored
        if not missing:
            return
        for entries in (self.manifest.files, self.manifest.documents):
            for key in [k for k, entry in entries.items() if missing.intersection(entry["chunks"])]:
                logger.warning(
                    "%s: parts of %s are missing; it will be read again when it is next indexed", self._folder, key
                )
                entry = entries[key]
                entry.update(sha256=None, size=-1, chunks=[c for c in entry["chunks"] if c not in missing])
        self._used = self.manifest.used()

    def use_embeddings(self, name: str) -> None:
        """Embed all chunks again if their vectors come from other embeddings, or if such a run was killed."""
        kept = self._folder / _REEMBEDDING
        if kept.is_file():
            rows = json.loads(kept.read_text("utf-8"))
        elif self.manifest.embeddings in (None, name) or not self._used:
            self.manifest.embeddings = name
            return
        else:
            logger.warning(
                "%s: the vectors were computed with %s; embedding all %d chunks again with %s",
                self._folder,
                self.manifest.embeddings,
                len(self._used),
                name,
            )
            found = self._store.documents(sorted(self._used))
            rows = [{"id": d.id, "text": d.page_content, "metadata": d.metadata} for d in found]
            write_json(kept, rows)
        self._store.clear()
        self._store.add([Document(r["text"], id=r["id"], metadata=r["metadata"]) for r in rows])
        self.counts["embedded"] += len(rows)
        self.manifest.embeddings = name
        self.manifest.write(self._folder)
        self._store.written(self.manifest)
        kept.unlink()

    def take(self, file: FoundFile, root: Path, encoding: str | None = None) -> None:
        """Synchronise the index with one file.

        Args:
            file: The file.
            root: The ingested source, resolved: a folder that contains the file, or the file itself.
            encoding: Encoding of files that are not UTF-8 and have no byte-order mark.
        """
        key = file_key(file.path)
        known = self.manifest.files.get(key)
        how = {"reader": READER, "splitter": self._cut, "encoding": encoding}
        try:
            stat = file.path.stat()
            state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, **how}
            if known is not None and _is_known(known, state):
                self._unchanged(file, known)
                return
            content = {"sha256": sha256(file.path), **how}
        except OSError as error:
            kept = "; its previously indexed content is kept" if known is not None and known["chunks"] else ""
            reason = f"cannot be read: {error.strerror or error}{kept}"
            self.findings.add(Skipped(file.name, reason, transient=True))
            return
        if known is not None and _is_known(known, content):
            self._unchanged(file, known)
            self._note(self.manifest.files, key, {**known, **state})  # touched, not changed
            return
        place = {"root": clean_name(str(root)) if known is None else known["root"]}
        if key != str(file.path.resolve()):
            place["bytes"] = os.fsencode(file.path.resolve()).hex()
        chunks, findings = self._read(file, encoding)
        for finding in findings:
            self.findings.add(finding)
        before = list(known["chunks"]) if known is not None else []
        if before == chunks:
            self.counts["unchanged"] += bool(chunks)
        else:
            self.counts["changed" if before else "added"] += 1
        told = {
            "skipped": [f.reason for f in findings if isinstance(f, Skipped)],
            "notes": [f.text for f in findings if isinstance(f, Note)],
            "retry": any(isinstance(f, Skipped) and f.transient for f in findings),
        }
        found = {name: value for name, value in told.items() if value}
        self._note(self.manifest.files, key, {**place, **state, **content, "chunks": chunks, **found})

    def _read(self, file: FoundFile, encoding: str | None) -> tuple[list[str], list[Skipped | Note]]:
        """Store the new chunks of a file; return the ids of all its chunks, and the findings from reading it."""
        chunks: dict[str, None] = {}
        findings: list[Skipped | Note] = []
        new: list[Document] = []
        for piece in read_file(file.path, file.name, encoding=encoding):
            if not isinstance(piece, ReadDocument):
                findings.append(piece)
                continue
            for chunk in self._splitter.split(as_document(piece)):
                if chunk.id is not None and chunk.id not in chunks:
                    chunks[chunk.id] = None
                    if chunk.id not in self._used:
                        new.append(chunk)
            if len(new) >= _ADD_EVERY:
                self._embed(new)
                new = []
        self._embed(new)
        return list(chunks), findings

    def put(self, document: Document, source: str) -> None:
        """Add a document, or replace the one with its id.

        Args:
            document: The document, with an id and plain metadata.
            source: The source to list and remove it under.
        """
        key = str(document.id)
        known = self.manifest.documents.get(key)
        content = json.dumps([document.page_content, document.metadata], sort_keys=True)
        state = {"source": source, "sha256": hashlib.sha256(content.encode()).hexdigest(), "splitter": self._cut}
        if known is not None and {name: known[name] for name in state} == state:
            self.counts["unchanged"] += 1
            return
        pieces = self._splitter.split(document)
        whole = len(pieces) == 1
        chunks = {
            id_: Document(c.page_content, id=id_, metadata=c.metadata)
            for c in pieces
            for id_ in [key if whole else f"{key}#{str(c.id)[:16]}"]
        }
        # A single chunk keeps the document's id even if the text changes; the ids of several chunks depend on the text.
        self._embed([chunk for id_, chunk in chunks.items() if whole or id_ not in self._used])
        self.counts["added" if known is None else "changed"] += 1
        self._note(self.manifest.documents, key, {**state, "chunks": list(chunks)})

    def forget(self, files: Iterable[str], documents: Iterable[str] = ()) -> None:
        """Remove files and documents by their keys in the manifest."""
        for entries, keys in ((self.manifest.files, files), (self.manifest.documents, documents)):
            for key in list(keys):
                chunks = set(entries.pop(key)["chunks"])
                self._used.subtract(chunks)
                self.counts["removed"] += bool(chunks)

    def forget_missing(self, source: Path, found: Found) -> None:
        """Remove files of a source that were not found, and files of any source that no longer exist.

        Files in folders that cannot be listed are kept.

        Args:
            source: A folder or file, resolved.
            found: The files found in it.
        """
        present = {file_key(file.path) for file in found.files}
        files = self.manifest.files
        unlisted = tuple(f"{clean_name(str(source))}/{s.name.removeprefix('./')}" for s in found.skipped if s.transient)
        inside = set(under(self.manifest, source))
        gone = [
            key
            for key, entry in files.items()
            if key not in present
            and not key.startswith(unlisted)
            and (key in inside or not _exists(file_path(key, entry)))
        ]
        before = Counter(e["root"] for e in files.values() if e["chunks"])
        lost = Counter(files[key]["root"] for key in gone if files[key]["chunks"])
        self.forget(gone)
        for root, number in lost.items():
            if number == before[root]:
                what = "no longer contains documents" if _exists(Path(root)) else "no longer exists"
                logger.warning("%s %s; its %d files were removed from the index %s", root, what, number, self._folder)

    def save(self, *, finished: bool = True) -> None:
        """Write the manifest; if `finished`, also delete the chunks that it no longer names."""
        self.manifest.write(self._folder)
        self._store.written(self.manifest)
        self._saved = time.monotonic()
        if not finished:
            return
        unused = [c for c, count in self._used.items() if count <= 0]
        if unused:
            self._store.delete(unused)
            touch(self._folder)  # makes readers that have just loaded the deleted chunks reload
            self._store.written(self.manifest)
            self._used -= Counter()

    # ------------------------------------------------------------------ helpers

    def _embed(self, chunks: Sequence[Document]) -> None:
        self._store.add(chunks)
        self.counts["embedded"] += len(chunks)

    def _unchanged(self, file: FoundFile, known: Mapping[str, Any]) -> None:
        """Count an unchanged file, and repeat the findings from when it was read."""
        self.counts["unchanged"] += bool(known["chunks"])
        for reason in known.get("skipped", ()):
            self.findings.add(Skipped(file.name, reason))
        for text in known.get("notes", ()):
            self.findings.add(Note(file.name, text))

    def _note(self, entries: dict[str, dict[str, Any]], key: str, entry: dict[str, Any]) -> None:
        before = entries.get(key, {"chunks": ()})
        self._used.update(set(entry["chunks"]))
        self._used.subtract(set(before["chunks"]))
        entries[key] = entry
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save(finished=False)


def _is_known(known: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    return not known.get("retry") and all(known.get(name) == value for name, value in state.items())


def _exists(path: Path) -> bool:
    """Return whether a file or folder exists; if this cannot be determined, assume that it does."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
