"""The chunks of an index, in an embedded, persistent Chroma collection."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langgraph_dynrag.retrieval.metadata import restored, stored

_BATCH = 64
_MANY = 1000


class ChunkStore:
    """Text, metadata and vectors by id.

    Args:
        folder: Where Chroma keeps its files.
        embeddings: Of the vectors.
    """

    def __init__(self, folder: Path, embeddings: Embeddings) -> None:
        self._folder = folder
        self._embeddings = embeddings

    @cached_property
    def vectors(self) -> Any:
        """LangChain's Chroma vector store; opened when it is first needed."""
        import chromadb
        from langchain_chroma import Chroma

        client = chromadb.PersistentClient(str(self._folder), settings=chromadb.Settings(anonymized_telemetry=False))
        return Chroma(
            "documents", self._embeddings, client=client, collection_configuration={"hnsw": {"space": "cosine"}}
        )

    def add(self, chunks: Sequence[Document]) -> None:
        """Embed and store chunks; those that are there are replaced."""
        for start in range(0, len(chunks), _BATCH):
            batch = chunks[start : start + _BATCH]
            titled = [
                f"{d.metadata['title']}: {d.page_content}" if d.metadata.get("title") else d.page_content for d in batch
            ]
            # The vector is that of title and text; what is stored and shown is the text.
            self.vectors._collection.upsert(  # noqa: SLF001 - LangChain's wrapper embeds exactly what it stores
                ids=[d.id for d in batch],
                embeddings=self._embeddings.embed_documents([unicodedata.normalize("NFC", text) for text in titled]),
                documents=[d.page_content for d in batch],
                metadatas=[stored(d.metadata) for d in batch],
            )

    def delete(self, ids: Iterable[str]) -> None:
        """Remove chunks; ids that are not there are ignored."""
        listed = sorted(ids)
        for start in range(0, len(listed), _MANY):
            self.vectors.delete(listed[start : start + _MANY])

    def clear(self) -> None:
        """Remove everything."""
        self.vectors.reset_collection()

    def ids(self) -> set[str]:
        """The ids of all chunks."""
        return set(self.vectors.get(include=[])["ids"])

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """The chunks with these ids, in their order, without those that are missing."""
        by_id: dict[str, Document] = {}
        for start in range(0, len(ids), _MANY):
            got = self.vectors.get(list(ids[start : start + _MANY]), include=["documents", "metadatas"])
            for key, text, metadata in zip(got["ids"], got["documents"], got["metadatas"], strict=True):
                by_id[key] = Document(text, id=key, metadata=restored(metadata))
        return [by_id[key] for key in ids if key in by_id]
