"""A folder that holds an index of documents: Chroma for dense vectors, BM25, and both together.

Embedded and persistent; needs no server and no network. Ingestion is incremental: a file whose size and time are known
is not even opened, and of a changed file only the chunks that are new are embedded. A manifest, replaced atomically
every few seconds, says what is indexed; whatever a killed ingestion left unfinished, the next one finishes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from tqdm.auto import tqdm

from langgraph_dynrag.retrieval.bm25 import TERMS_VERSION, BM25Retriever
from langgraph_dynrag.retrieval.chunking import CHUNKING_VERSION
from langgraph_dynrag.retrieval.dense import DenseRetriever
from langgraph_dynrag.retrieval.files import Splitter
from langgraph_dynrag.retrieval.hybrid import HybridRetriever
from langgraph_dynrag.retrieval.ingestion import Ingestion
from langgraph_dynrag.retrieval.minilm import MiniLMEmbeddings
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.documents import SUFFIXES, check_encoding, find_files, told
from rag_backbone.errors import ConfigurationError
from rag_backbone.unicode_text import clean_name

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_UNFINISHED = "unfinished"
_VERSION = 1
_READER = 2  # raised when files are read in another way, so that they are read again

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
    skipped: tuple[tuple[str, str], ...] = ()
    """Names and reasons of what is not in the index: files, folders and rows, unchanged ones included."""
    notes: tuple[tuple[str, str], ...] = ()
    """Names, and what was changed or left out while a file was read."""

    def __str__(self) -> str:
        counts = (
            f"{self.added} files added, {self.changed} changed, {self.removed} removed, {self.unchanged} unchanged; "
            f"{self.embedded} chunks embedded, {self.chunks} in the index"
        )
        return f"{counts}\n{told(self.skipped, self.notes)}".rstrip()


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
        self._store = ChunkStore(self.folder / "chroma", self.embeddings)

    def ingest(
        self, source: str | Path, *, encoding: str | None = None, exclude: Sequence[str] | str = (),
        hidden: bool = False, progress: bool = True,
    ) -> IngestReport:  # fmt: skip
        """Bring the index in line with a folder or a file.

        Text, Markdown, JSON, JSON lines and tables are read, and with the extra `files` HTML, PDF and Word documents.
        Files that were indexed from there and are gone are removed. What cannot be read is listed in the report, on
        every run, and does not stop the rest.

        Args:
            source: The folder or file.
            encoding: Of files that are not UTF-8 and have no byte-order mark, such as `"cp1252"`.
            exclude: Glob patterns of names or relative paths that are left out.
            hidden: Whether hidden files and folders, and folders of tools such as `node_modules`, are read as well.
            progress: Whether to show a progress bar.

        Raises:
            ConfigurationError: If there is no such source, or the index would be empty.
        """
        check_encoding(encoding)
        source = Path(source)
        found = find_files(source, SUFFIXES, exclude=exclude, hidden=hidden, outside=[self.folder])
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "ingest.lock"):
            manifest = self._manifest()
            mark = self.folder / _UNFINISHED
            if mark.exists():
                self._store.delete(self._store.ids() - set(self._chunk_ids(manifest)))
            mark.touch()
            root = clean_name(str((source if source.is_dir() else source.parent).resolve()))
            ingestion = Ingestion(self._store, self.splitter, self.folder / _MANIFEST, manifest, root, encoding)
            for skipped in found.skipped:
                ingestion.findings.add(skipped)
            if manifest["settings"] != self._settings():
                ingestion.forget_all(self._settings())
            try:
                for file in tqdm(found.files, desc="indexing", unit="file", disable=not progress):
                    ingestion.take(file)
                if source.is_dir():
                    ingestion.remove_missing(found)
            finally:
                ingestion.save()
            mark.unlink()
            findings = ingestion.findings
            if not self._chunk_ids(manifest):
                raise ConfigurationError(
                    f"{source} holds no text to index\n{told(findings.skipped, findings.notes)}".rstrip()
                )
        findings.log(logger, clean_name(str(source)))
        return IngestReport(**ingestion.counts, chunks=len(self), skipped=findings.skipped, notes=findings.notes)

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
        dense = DenseRetriever(store=self._store.vectors, k=k)
        if kind == "dense":
            return dense
        sparse = self._bm25(k)
        return sparse if kind == "bm25" else HybridRetriever(retrievers=[dense, sparse], k=k)

    def __len__(self) -> int:
        return len(self._chunk_ids(self._manifest()))

    def __repr__(self) -> str:
        return f"LocalIndex({str(self.folder)!r}, {len(self)} chunks)"

    # ------------------------------------------------------------------ helpers

    def _settings(self) -> dict[str, Any]:
        made_by = type(self.embeddings).__name__
        # LangChain's embeddings call it one or the other.
        model = getattr(self.embeddings, "model_name", None) or getattr(self.embeddings, "model", None)
        embeddings = f"{made_by} {model}" if model else made_by
        splitter = {**asdict(self.splitter), "version": CHUNKING_VERSION}
        return {"reader": _READER, "splitter": splitter, "embeddings": embeddings}

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

    @staticmethod
    def _chunk_ids(manifest: dict[str, Any]) -> list[str]:
        return sorted({c for f in manifest["files"].values() for c in f["chunks"]})

    def _bm25(self, k: int) -> BM25Retriever:
        """The BM25 index of what is in the manifest now, built unless it is there."""
        ids = self._chunk_ids(self._manifest())
        state = hashlib.sha256("\n".join([f"terms {TERMS_VERSION}", *ids]).encode()).hexdigest()[:16]
        target = self.folder / f"bm25-{state}"
        documents = self._store.documents(ids)
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
