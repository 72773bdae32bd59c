"""A folder that holds an index of documents: Chroma for dense vectors, BM25, and both together.

Embedded and persistent; needs no server and no network. Ingestion is incremental: a file whose size and time are known
is not even opened, and of a changed file only the chunks that are new are embedded. A manifest, replaced atomically
after every file, says what is indexed; whatever a killed ingestion left unfinished, the next one finishes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from tqdm.auto import tqdm

from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.retrieval.dense import DenseRetriever
from langgraph_dynrag.retrieval.files import Splitter, find_files, read_documents
from langgraph_dynrag.retrieval.hybrid import HybridRetriever
from langgraph_dynrag.retrieval.minilm import MiniLMEmbeddings
from rag_backbone.cache_folder import sha256, write_json
from rag_backbone.errors import ConfigurationError

_MANIFEST = "manifest.json"
_VERSION = 1
_BATCH = 64

Kind = Literal["hybrid", "dense", "bm25"]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    """Files."""
    embedded: int = 0
    """Chunks that had to be embedded."""
    chunks: int = 0
    """Chunks in the index now."""

    def __str__(self) -> str:
        return (
            f"{self.added} files added, {self.changed} changed, {self.removed} removed, {self.unchanged} unchanged; "
            f"{self.embedded} chunks embedded, {self.chunks} in the index"
        )


class LocalIndex:
    """An index of documents in a folder.

    Args:
        folder: Where it is, or is to be.
        embeddings: Of the dense vectors; MiniLM by default. An index is tied to what made it.
        splitter: How documents are cut. A change of it indexes everything anew.

    Example:
        >>> index = LocalIndex("notes.index")  # doctest: +SKIP
        >>> index.ingest("notes/")  # doctest: +SKIP
        >>> index.as_retriever("hybrid", k=3).invoke("Who built the bridge?")  # doctest: +SKIP
    """

    def __init__(
        self, folder: str | Path, *, embeddings: Embeddings | None = None, splitter: Splitter | None = None
    ) -> None:
        self.folder = Path(folder)
        self.embeddings = embeddings or MiniLMEmbeddings()
        self.splitter = splitter or Splitter()

    def ingest(self, source: str | Path, *, progress: bool = True) -> IngestReport:
        """Bring the index in line with a folder or file of `.txt`, `.md` and `.jsonl`.

        Files that were indexed from there and are gone are removed.

        Raises:
            ConfigurationError: If there is nothing to read, or a file is malformed.
        """
        source = Path(source)
        files = find_files(source)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "ingest.lock"):
            manifest = self._manifest()
            if manifest["settings"] != self._settings():
                self._forget_all(manifest)
            root = str((source if source.is_dir() else source.parent).resolve())
            counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "embedded"), 0)
            for path in tqdm(files, desc="indexing", unit="file", disable=not progress):
                outcome, embedded = self._ingest_file(path, root, manifest)
                counts[outcome] += 1
                counts["embedded"] += embedded
            if source.is_dir():
                counts["removed"] = self._remove_missing(files, root, manifest)
            if not self._chunk_ids(manifest):
                raise ConfigurationError(f"{source} holds no text to index")
        return IngestReport(**counts, chunks=len(self))

    def as_retriever(self, kind: Kind = "hybrid", *, k: int = 3) -> BaseRetriever:
        """A retriever over the index.

        Args:
            kind: Dense vectors, BM25, or the reciprocal-rank fusion of both.
            k: Documents returned at most.

        Raises:
            ConfigurationError: If the index is empty or the kind unknown.
        """
        if kind not in ("hybrid", "dense", "bm25"):
            raise ConfigurationError(f"kind is {kind!r}; known: 'hybrid', 'dense', 'bm25'")
        if not len(self):
            raise ConfigurationError(f"the index {self.folder} is empty; fill it first: dynprag index FOLDER")
        dense = DenseRetriever(store=self._store, k=k)
        if kind == "dense":
            return dense
        sparse = self._bm25(k)
        return sparse if kind == "bm25" else HybridRetriever(retrievers=[dense, sparse], k=k)

    def __len__(self) -> int:
        return len(self._chunk_ids(self._manifest()))

    def __repr__(self) -> str:
        return f"LocalIndex({str(self.folder)!r}, {len(self)} chunks)"

    # ------------------------------------------------------------------ helpers

    @cached_property
    def _store(self) -> Any:
        import chromadb
        from langchain_chroma import Chroma

        settings = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(self.folder / "chroma"), settings=settings)
        return Chroma(
            "documents", self.embeddings, client=client, collection_configuration={"hnsw": {"space": "cosine"}}
        )

    def _settings(self) -> dict[str, Any]:
        return {"splitter": asdict(self.splitter), "embeddings": type(self.embeddings).__name__}

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / _MANIFEST
        if not path.is_file():
            return {"version": _VERSION, "settings": self._settings(), "files": {}}
        try:
            manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
            found = manifest["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path} is damaged ({error}); delete {self.folder} and index again") from error
        if found != _VERSION:
            raise ConfigurationError(
                f"{self.folder} was made by another version (format {found}, this one reads {_VERSION}); "
                "delete it and index again"
            )
        return manifest

    def _ingest_file(self, path: Path, root: str, manifest: dict[str, Any]) -> tuple[str, int]:
        key = f"{root}\0{path.resolve().relative_to(root).as_posix()}"
        known = manifest["files"].get(key)
        stat = path.stat()
        state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if known is not None and {name: known[name] for name in state} == state:
            return "unchanged", 0
        digest = sha256(path)
        if known is not None and known["sha256"] == digest:  # touched, not changed
            self._note(manifest, key, {**known, **state})
            return "unchanged", 0
        relative = path.resolve().relative_to(root).as_posix()
        documents = read_documents(path, relative)
        chunks = {c.id: c for d in documents for c in self.splitter.split(d) if c.id is not None}
        old = set(known["chunks"]) if known is not None else set()
        new = [chunk for key_, chunk in chunks.items() if key_ not in old]
        self._add(new)
        elsewhere = {c for k, f in manifest["files"].items() if k != key for c in f["chunks"]}
        self._delete(old - set(chunks) - elsewhere)
        self._note(manifest, key, {**state, "sha256": digest, "chunks": list(chunks)})
        return ("added" if known is None else "changed"), len(new)

    def _remove_missing(self, files: Sequence[Path], root: str, manifest: dict[str, Any]) -> int:
        present = {f"{root}\0{p.resolve().relative_to(root).as_posix()}" for p in files}
        missing = [k for k in manifest["files"] if k.startswith(f"{root}\0") and k not in present]
        for key in missing:
            gone = set(manifest["files"].pop(key)["chunks"])
            self._delete(gone - {c for f in manifest["files"].values() for c in f["chunks"]})
            write_json(self.folder / _MANIFEST, manifest)
        return len(missing)

    def _add(self, chunks: Sequence[Document]) -> None:
        for start in range(0, len(chunks), _BATCH):
            batch = chunks[start : start + _BATCH]
            titled = [
                f"{d.metadata['title']}: {d.page_content}" if d.metadata.get("title") else d.page_content for d in batch
            ]
            # The vector is that of title and text; what is stored and shown is the text.
            self._store._collection.upsert(  # noqa: SLF001 - LangChain's wrapper embeds exactly what it stores
                ids=[d.id for d in batch],
                embeddings=self.embeddings.embed_documents(titled),
                documents=[d.page_content for d in batch],
                metadatas=[d.metadata for d in batch],
            )

    def _delete(self, ids: Iterable[str]) -> None:
        listed = sorted(ids)
        for start in range(0, len(listed), 1000):
            self._store.delete(listed[start : start + 1000])

    def _note(self, manifest: dict[str, Any], key: str, state: dict[str, Any]) -> None:
        manifest["files"][key] = state
        manifest["settings"] = self._settings()
        write_json(self.folder / _MANIFEST, manifest)

    def _forget_all(self, manifest: dict[str, Any]) -> None:
        self._store.reset_collection()
        manifest["files"] = {}

    @staticmethod
    def _chunk_ids(manifest: dict[str, Any]) -> list[str]:
        return sorted({c for f in manifest["files"].values() for c in f["chunks"]})

    def _bm25(self, k: int) -> BM25Retriever:
        """The BM25 index of what is in the manifest now, built unless it is there."""
        ids = self._chunk_ids(self._manifest())
        state = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        target = self.folder / f"bm25-{state}"
        documents = self._documents(ids)
        if target.is_dir():
            return BM25Retriever.load(target, documents, k=k)
        retriever = BM25Retriever.from_documents(documents, k=k)
        with FileLock(self.folder / "bm25.lock"):
            if not target.is_dir():
                building = self.folder / f".bm25-{state}"
                shutil.rmtree(building, ignore_errors=True)
                retriever.save(building)
                building.replace(target)
                for old in self.folder.glob("bm25-*"):
                    if old != target:
                        shutil.rmtree(old, ignore_errors=True)
        return retriever

    def _documents(self, ids: Sequence[str]) -> list[Document]:
        by_id: dict[str, Document] = {}
        for start in range(0, len(ids), 1000):
            got = self._store.get(list(ids[start : start + 1000]), include=["documents", "metadatas"])
            for key, text, metadata in zip(got["ids"], got["documents"], got["metadatas"], strict=True):
                by_id[key] = Document(text, id=key, metadata=metadata or {})
        return [by_id[key] for key in ids if key in by_id]
