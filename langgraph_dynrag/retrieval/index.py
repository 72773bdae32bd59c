"""`LocalIndex`: an index of documents in a folder, with Chroma for dense vectors, BM25, and a hybrid of both.

Embedded and persistent; needs no server and no network. The texts and vectors can also be in a Chroma server; the
manifest, the lock and the BM25 index are in the folder all the same.

Ingestion is incremental: a file with unchanged size and modification time is not opened, and only the new chunks of a
changed file are embedded. A manifest, replaced atomically every few seconds, records what is indexed; if an ingestion
is killed, the next one completes its work.

Several threads and processes may use an index concurrently: only one changes it at a time, and each query sees the
current content. A read-only index can be searched.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from tqdm.auto import tqdm

from langgraph_dynrag.retrieval import manifest as manifests
from langgraph_dynrag.retrieval.added import prepare_documents
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.retrieval.bm25_folder import drop_old, load_or_build
from langgraph_dynrag.retrieval.chroma_folder import ChromaFolder, FileState, is_writable
from langgraph_dynrag.retrieval.chroma_server import ChromaServer
from langgraph_dynrag.retrieval.dense import DenseRetriever
from langgraph_dynrag.retrieval.files import Splitter
from langgraph_dynrag.retrieval.hybrid import HybridRetriever
from langgraph_dynrag.retrieval.ingest_report import IngestReport
from langgraph_dynrag.retrieval.ingestion import Ingestion
from langgraph_dynrag.retrieval.live import LiveBM25Retriever, LiveVectors
from langgraph_dynrag.retrieval.manifest import Manifest
from langgraph_dynrag.retrieval.minilm import MiniLMEmbeddings
from langgraph_dynrag.retrieval.sources import IndexSource, find_source, list_sources, under
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.documents import SUFFIXES, Findings, Found, check_encoding, find_files, told
from rag_backbone.errors import ConfigurationError, DynPragError, IndexFolderError
from rag_backbone.text.unicode import clean_name

logger = logging.getLogger(__name__)

_UNFINISHED = "unfinished"

Pairs = tuple[tuple[str, str], ...]
RetrieverKind = Literal["hybrid", "dense", "bm25"]


class LocalIndex:
    """An index of documents in a folder.

    Args:
        folder: The index's folder; created when documents are first added. With a `client` it holds the manifest and
            the BM25 index, and without them the collection can neither be searched nor changed.
        embeddings: Computes the dense vectors; MiniLM by default. An index is tied to its embeddings: if others are
            passed, the next change of the index embeds everything again.
        splitter: Splits documents into chunks. A changed splitter takes effect when a source is next ingested.
        client: A synchronous client of a Chroma server, such as `chromadb.HttpClient(host="localhost", port=8000)`, for
            texts and vectors; None for files in the folder.
        collection: Name of the collection in that server. It belongs to this index, and is created by it.

    Raises:
        ConfigurationError: If the client is asynchronous or not a client of Chroma.

    Example:
        >>> index = LocalIndex("notes.index")  # doctest: +SKIP
        >>> index.ingest("notes/")  # doctest: +SKIP
        >>> index.as_retriever("hybrid", k=3).invoke("Who built the bridge?")  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        embeddings: Embeddings | None = None,
        splitter: Splitter | None = None,
        client: Any = None,
        collection: str = "documents",
    ) -> None:
        self.folder = Path(folder)
        self.embeddings = embeddings or MiniLMEmbeddings()
        self.splitter = splitter or Splitter()
        self._server = None if client is None else ChromaServer(client, collection, self.folder)
        place = self._server or ChromaFolder.of(self.folder, self.folder / manifests.NAME)
        self._store = ChunkStore(place, self.embeddings)
        self._lock = threading.Lock()
        self._ids: tuple[FileState, frozenset[str]] | None = None
        self._bm25: tuple[FileState, BM25Retriever | None] | None = None

    # ------------------------------------------------------------------ content

    def ingest(
        self,
        source: str | Path,
        *,
        encoding: str | None = None,
        exclude: Sequence[str] | str = (),
        hidden: bool = False,
        progress: bool = True,
    ) -> IngestReport:
        """Synchronise the index with a folder or a file.

        Reads text, Markdown, JSON, JSON lines and tables, and with the extra `files` also HTML, PDF and Word documents.
        Files that cannot be read are listed in the report, on every run, and do not stop the ingestion.

        Files that were indexed from this source and no longer exist are removed from the index, and so are missing
        files of other sources. If a folder that was indexed is now empty, moved or deleted, all its documents are
        removed, with a warning.

        Args:
            source: The folder or file.
            encoding: Encoding of files that are not UTF-8 and have no byte-order mark, such as `"cp1252"`.
            exclude: Glob patterns of names or relative paths to leave out.
            hidden: Whether to read hidden files and folders, and folders of tools such as `node_modules`.
            progress: Whether to show a progress bar.

        Raises:
            ConfigurationError: If the source does not exist or contains no text and nothing was indexed from it before,
                or if the index would be empty.
            IndexFolderError: If the index cannot be written.
        """
        check_encoding(encoding)
        source = Path(source).expanduser()
        place = source.resolve()
        try:
            found = find_files(source, SUFFIXES, exclude=exclude, hidden=hidden, outside=[self.folder])
        except ConfigurationError:
            if not under(self._manifest(), place):
                raise
            found = Found()
        if not found.files and not under(self._manifest(), place):
            raise _nothing_to_index(source, Findings(found.skipped))
        with self._changing() as ingestion:
            for skipped in found.skipped:
                ingestion.findings.add(skipped)
            for file in tqdm(found.files, desc="indexing", unit="file", disable=not progress):
                ingestion.take(file, place, encoding)
            ingestion.forget_missing(place, found)
        findings = ingestion.findings
        report = self._report(ingestion, skipped=findings.skipped, notes=findings.notes)
        if not report.chunks and not report.removed:
            raise _nothing_to_index(source, findings)
        findings.log(logger, clean_name(str(source)))
        return report

    def add_documents(
        self, documents: Sequence[Document], *, source: str | None = None, replace: bool = False
    ) -> IngestReport:
        """Add LangChain documents, for example from a loader; documents with known ids are replaced.

        Documents without an id get one derived from text and metadata, so that adding them is idempotent. Metadata may
        be anything that can be converted to plain data: dates become ISO 8601 strings, nested values are kept.

        Args:
            documents: The documents; they are split into chunks like files.
            source: The source to list and remove them under; None for each document's own source
                (`metadata["source"]`, a URL or file name), or "documents" if it has none.
            replace: Whether these are all documents of their sources, so that other documents of these sources are
                removed.

        Returns:
            A report; `skipped` lists documents without text, `notes` metadata that could not be kept.

        Raises:
            ConfigurationError: If anything other than documents is given.
            IndexFolderError: If the index cannot be written.
        """
        ready = prepare_documents(documents, source)
        with self._changing() as ingestion:
            for name, document in ready.documents:
                ingestion.put(document, name)
            if replace:
                kept = {str(d.id) for _, d in ready.documents}
                named = {name for name, _ in ready.documents} | ({source} if source is not None else set())
                entries = ingestion.manifest.documents
                ingestion.forget((), [k for k, e in entries.items() if e["source"] in named and k not in kept])
        return self._report(ingestion, skipped=ready.skipped, notes=ready.notes)

    async def aadd_documents(
        self, documents: Sequence[Document], *, source: str | None = None, replace: bool = False
    ) -> IngestReport:
        """Do the same as `add_documents`, in another thread."""
        return await run_in_executor(None, lambda: self.add_documents(documents, source=source, replace=replace))

    def add_texts(
        self,
        texts: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        source: str | None = None,
        replace: bool = False,
    ) -> IngestReport:
        """Add texts with their metadata and ids; see `add_documents`.

        Raises:
            ConfigurationError: If `texts` is a single string, or the number of metadata or ids differs from that of
                texts.
        """
        if isinstance(texts, str):
            raise ConfigurationError(f"texts is one string; a list of strings is needed: [{texts[:20]!r}]")
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise ConfigurationError(f"{len(texts)} texts and {len(given)} {name} were given; one each is needed")
        documents = [
            Document(text, id=ids[i] if ids is not None else None, metadata=dict(metadatas[i]) if metadatas else {})
            for i, text in enumerate(texts)
        ]
        return self.add_documents(documents, source=source, replace=replace)

    def sources(self) -> list[IndexSource]:
        """Return the sources of the index: ingested folders and files, and the sources of added documents."""
        return list_sources(self._manifest())

    def remove(self, source: str | Path) -> IngestReport:
        """Remove everything that came from a source, from search results and from the index's files.

        Files that still exist are indexed again when their folder is next ingested.

        Args:
            source: A folder or file that was ingested, or one inside it, whether it still exists or not; the source of
                added documents; a file's name as search results show it; or the id of an added document.

        Raises:
            ConfigurationError: If nothing in the index came from that source.
            IndexFolderError: If the index cannot be written.
        """
        find_source(self._manifest(), source)
        with self._changing() as ingestion:
            ingestion.forget(*find_source(ingestion.manifest, source))
        return self._report(ingestion)

    def __len__(self) -> int:
        return len(self._current_ids()[1])

    def __repr__(self) -> str:
        where = "" if self._server is None else f", {self._server}"
        try:
            content = f"{len(self)} chunks"
        except (DynPragError, OSError) as error:  # a debugger or a log shows an index that cannot be used, too
            content = type(error).__name__
        return f"LocalIndex({str(self.folder)!r}{where}, {content})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._server is not None:
            raise TypeError(f"{self!r} cannot be copied or pickled with its connection; open it where it is needed")
        return partial(LocalIndex, embeddings=self.embeddings, splitter=self.splitter), (self.folder,)

    # ------------------------------------------------------------------ searching

    def as_retriever(self, kind: RetrieverKind = "hybrid", *, k: int = 3) -> BaseRetriever:
        """Return a retriever over the index. Each query searches the current content.

        Args:
            kind: Dense vectors, BM25, or the reciprocal-rank fusion of both.
            k: Maximum number of documents returned.

        Raises:
            ConfigurationError: If the index is empty or the kind is unknown.
        """
        if kind not in ("hybrid", "dense", "bm25"):
            raise ConfigurationError(f"kind is {kind!r}; known: 'hybrid', 'dense', 'bm25'")
        manifest = self._manifest()
        if not manifest.chunk_ids():
            raise ConfigurationError(f"the index {self.folder} is empty; fill it first: dynprag index FOLDER")
        if kind == "bm25":
            return LiveBM25Retriever(index=self, k=k)
        if manifest.embeddings != self._embeddings_name():
            logger.warning(
                "the vectors of %s were computed with %s but are searched with %s; use the same, or index again",
                self.folder,
                manifest.embeddings,
                self._embeddings_name(),
            )
        dense = DenseRetriever(store=LiveVectors(self), k=k)
        return (
            dense if kind == "dense" else HybridRetriever(retrievers=[dense, LiveBM25Retriever(index=self, k=k)], k=k)
        )

    def nearest(self, query: str, k: int) -> list[tuple[Document, float]]:
        """Return the `k` chunks nearest to a query, with their cosine distances."""
        return self._store.nearest(query, k, lambda: self._current_ids()[1])

    def bm25(self) -> BM25Retriever | None:
        """Return the BM25 index of the current content; None if there is nothing to find."""
        with self._lock:
            if self._bm25 is None or self._bm25[0] != manifests.state_of(self.folder):
                self._bm25 = self._current_bm25()
            return self._bm25[1]

    # ------------------------------------------------------------------ helpers

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Ingestion]:
        """Hold the index's lock for a change; first complete what a killed change left unfinished."""
        if not is_writable(self.folder):
            raise IndexFolderError(
                f"the index {self.folder} is read-only: it can be searched, but not changed. Give this user write "
                "permission, or use another folder"
            )
        mark = self.folder / _UNFINISHED
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "ingest.lock"):
                manifest = self._manifest()
                if self._server is None:
                    manifest.server = None  # nothing is indexed there, or this index could not be opened without it
                else:
                    self._server.claim(manifest)
                ingestion = Ingestion(self.folder, self._store, self.splitter, manifest)
                unfinished = mark.exists()
                mark.touch()
                ingestion.use_embeddings(self._embeddings_name())
                ingestion.repair(unfinished=unfinished)
                try:
                    yield ingestion
                finally:
                    ingestion.save()
                    drop_old(self.folder, ingestion.manifest)
                mark.unlink()
        except DynPragError:
            raise
        except OSError as error:
            raise IndexFolderError(f"the index {self.folder} cannot be written: {error}") from error

    def _report(self, ingestion: Ingestion, skipped: Pairs = (), notes: Pairs = ()) -> IngestReport:
        return IngestReport(**ingestion.counts, chunks=len(self), skipped=skipped, notes=notes)

    def _embeddings_name(self) -> str:
        # LangChain's `CacheBackedEmbeddings` and `RayEmbeddings` give the vectors of other embeddings.
        of = getattr(self.embeddings, "underlying_embeddings", self.embeddings)
        made_by = type(of).__name__
        model = getattr(of, "model_name", None) or getattr(of, "model", None)  # LangChain's use either name
        return f"{made_by} {model}" if model else made_by

    def _manifest(self) -> Manifest:
        manifest = Manifest.read(self.folder)
        manifest.check_place(self.folder, None if self._server is None else self._server.name)
        return manifest

    def _current_ids(self) -> tuple[FileState, frozenset[str]]:
        state = manifests.state_of(self.folder)
        if self._ids is None or self._ids[0] != state:
            self._ids = (state, frozenset(self._manifest().used()))
        return self._ids

    def _current_bm25(self) -> tuple[FileState, BM25Retriever | None]:
        for _ in range(3):
            state = manifests.state_of(self.folder)
            manifest = self._manifest()
            ids = manifest.chunk_ids()
            if not ids:
                return state, None
            documents = self._store.documents(ids)
            if len(documents) == len(ids):
                return state, load_or_build(self.folder, manifest, documents)
            if state == manifests.state_of(self.folder):
                break  # no other process is changing the index
        raise IndexFolderError(
            f"{len(ids) - len(documents)} of the {len(ids)} chunks of {self.folder} are missing; index again"
        )


def _nothing_to_index(source: Path, findings: Findings) -> ConfigurationError:
    told_of = told(findings.skipped, findings.notes)
    return ConfigurationError(f"{clean_name(str(source))} contains no text to index\n{told_of}".rstrip())
