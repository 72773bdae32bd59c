"""The chunks of an index: text, metadata and vectors by id, in a Chroma collection."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langgraph_dynrag.retrieval.chroma_folder import ChromaFolder
from langgraph_dynrag.retrieval.chroma_server import ChromaServer
from langgraph_dynrag.retrieval.manifest import Manifest
from langgraph_dynrag.retrieval.metadata import restored, stored

_BATCH = 512
"""Chunks that are embedded and stored at a time: enough for several workers, few enough to do again."""
_MANY = 1000


class ChunkStore:
    """Text, metadata and vectors by id, always up to date, including writes by other processes.

    Args:
        place: Where the Chroma collection is.
        embeddings: Embeds chunks and queries.
    """

    def __init__(self, place: ChromaFolder | ChromaServer, embeddings: Embeddings) -> None:
        self._chroma = place
        self._embeddings = embeddings

    def add(self, chunks: Sequence[Document]) -> None:
        """Embed and store chunks; chunks with known ids are replaced."""
        for start in range(0, len(chunks), _BATCH):
            batch = chunks[start : start + _BATCH]
            ids = [str(d.id) for d in batch]
            # Title and text are embedded; only the text is stored and shown.
            vectors = self._embeddings.embed_documents(
                [unicodedata.normalize("NFC", text) for text in map(_titled, batch)]
            )
            rows: dict[str, list[Any]] = {
                "ids": ids,
                "embeddings": vectors,
                "documents": [d.page_content for d in batch],
                "metadatas": [stored(d.metadata) for d in batch],
            }
            self._chroma.write(partial(_replace, rows))

    def delete(self, ids: Iterable[str]) -> None:
        """Remove chunks, also from Chroma's files; unknown ids are ignored."""
        listed = sorted(ids)
        if not listed or not self._chroma.exists():
            return
        for start in range(0, len(listed), _MANY):
            part = listed[start : start + _MANY]
            self._chroma.write(partial(_delete, part))
        self._chroma.erase()

    def clear(self) -> None:
        """Remove all chunks."""
        self._chroma.clear()

    def written(self, manifest: Manifest) -> None:
        """Record that this process wrote the manifest."""
        self._chroma.written(manifest)

    def ids(self) -> set[str]:
        """Return the ids of all chunks."""
        return set(self._chroma.read(lambda c: c.get(include=[]))["ids"]) if self._chroma.exists() else set()

    def count(self) -> int:
        """Return the number of chunks."""
        return int(self._chroma.read(lambda c: c.count())) if self._chroma.exists() else 0

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """Return the chunks with these ids, in the same order; missing ones are left out."""
        by_id: dict[str, Document] = {}
        for start in range(0, len(ids), _MANY):
            part = list(ids[start : start + _MANY])
            got = self._chroma.read(partial(_get, part))
            for key, text, metadata in zip(got["ids"], got["documents"], got["metadatas"], strict=True):
                by_id[key] = Document(text, id=key, metadata=restored(metadata))
        return [by_id[key] for key in ids if key in by_id]

    def nearest(self, query: str, k: int, current: Callable[[], Collection[str]]) -> list[tuple[Document, float]]:
        """Return the `k` nearest chunks that the manifest currently names, with their cosine distances.

        Args:
            query: The text to search with.
            k: Maximum number of chunks returned.
            current: Returns the ids that may be returned; the store may hold others after an unfinished change.
        """
        if not current():
            return []
        vector = self._embeddings.embed_query(query)
        asked = k
        while True:
            among = current()
            got = self._chroma.read(partial(_query, vector, asked))
            rows = list(zip(*(got[part][0] for part in ("ids", "documents", "metadatas", "distances")), strict=True))
            found = [
                (Document(text, id=key, metadata=restored(metadata)), float(distance))
                for key, text, metadata, distance in rows
                if key in among and text is not None  # text is None if another process has just deleted it
            ]
            if len(found) >= min(k, len(among)):
                return found[:k]
            if len(rows) < asked:
                if among != current():
                    continue  # another process is changing the index
                raise self._chroma.incomplete(f"{len(among) - len(found)} of the {len(among)} vectors")
            asked *= 2


def _titled(chunk: Document) -> str:
    title = chunk.metadata.get("title")
    return f"{title}: {chunk.page_content}" if title else chunk.page_content


def _replace(rows: dict[str, list[Any]], collection: Any) -> None:
    # An upsert keeps fields of the old metadata, unless they are None in the new. Deleting first would lose the chunks
    # if the process or the connection ended in between.
    old = collection.get(rows["ids"], include=["metadatas"])
    before = dict(zip(old["ids"], old["metadatas"], strict=True))
    metadatas = [
        {**dict.fromkeys(before.get(key) or ()), **new} for key, new in zip(rows["ids"], rows["metadatas"], strict=True)
    ]
    collection.upsert(**{**rows, "metadatas": metadatas})


def _delete(ids: list[str], collection: Any) -> None:
    collection.delete(ids=ids)


def _get(ids: list[str], collection: Any) -> Any:
    return collection.get(ids, include=["documents", "metadatas"])


def _query(vector: list[float], k: int, collection: Any) -> Any:
    return collection.query(query_embeddings=[vector], n_results=k, include=["documents", "metadatas", "distances"])
