"""BM25 as a LangChain retriever, based on `bm25s`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from pydantic import PrivateAttr

from langgraph_dynrag.retrieval.local_retriever import LocalRetriever
from rag_backbone.errors import ConfigurationError
from rag_backbone.logger_levels import level_kept
from rag_backbone.text.units import search_words

with level_kept("bm25s"):
    import bm25s

TERMS_VERSION = 2
"""Incremented whenever term extraction changes, so that saved indexes are not searched with incompatible queries."""


class BM25Retriever(LocalRetriever):
    """Retrieve documents by BM25 (Robertson's, in Lucene's variant, k1 = 1.5, b = 0.75).

    Words are compared in a folded form; scripts without spaces use sequences of letters instead
    (`rag_backbone.text.scripts`). Titles in the metadata are indexed with the text. A document's `metadata["score"]` is
    its BM25 score; documents that share no word with the query are not returned.

    Example:
        >>> BM25Retriever.from_documents([Document("The Würm is a river.")]).invoke("river")  # doctest: +SKIP
    """

    _documents: list[Document] = PrivateAttr(default_factory=list)
    _index: Any = PrivateAttr(default=None)

    @classmethod
    def from_documents(cls, documents: Sequence[Document], **options: Any) -> BM25Retriever:
        """Index documents.

        Raises:
            ConfigurationError: If there are no documents, or none contains a word.
        """
        if not documents:
            raise ConfigurationError("there are no documents to index")
        retriever = cls(**options)
        tokens = [search_words(_indexed(d), indexing=True) for d in documents]
        if not any(tokens):
            raise ConfigurationError(f"none of the {len(documents)} documents contains a word to index")
        retriever._documents = list(documents)
        retriever._index = bm25s.BM25()
        retriever._index.index(tokens, show_progress=False)
        return retriever

    @property
    def documents(self) -> tuple[Document, ...]:
        """The documents that are searched."""
        return tuple(self._documents)

    @classmethod
    def load(cls, folder: Path, documents: Sequence[Document], **options: Any) -> BM25Retriever:
        """Load an index that `save` wrote for the same documents in the same order."""
        retriever = cls(**options)
        retriever._documents = list(documents)
        retriever._index = bm25s.BM25.load(folder, show_progress=False, verbosity=0)
        return retriever

    def save(self, folder: Path) -> None:
        """Write the index (not the documents) into a folder."""
        self._index.save(folder, show_progress=False)

    def document_frequency(self, word: str) -> int | None:
        """Return the number of documents that contain a word, or the rarest of its terms; None without any term."""
        terms = search_words(word, indexing=False)
        if not terms or self._index is None:
            return None
        # In Lucene's variant, every document with a term has a score above 0.
        return min(int((self._index.get_scores([term]) > 0).sum()) for term in terms)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
    ) -> list[Document]:
        wanted = min(self._wanted(k), len(self._documents))
        terms = search_words(query, indexing=False)
        if not terms or not wanted:
            return []
        # The result must not depend on whether JAX is installed: same order of ties, and no accelerator is used.
        found, scores = self._index.retrieve(
            [terms], k=wanted, show_progress=False, n_threads=0, backend_selection="numpy"
        )
        return [
            Document(d.page_content, id=d.id, metadata={**d.metadata, "score": float(score)})
            for d, score in zip((self._documents[int(i)] for i in found[0]), scores[0], strict=True)
            if score > 0
        ]

    def __len__(self) -> int:
        return len(self._documents)


def _indexed(document: Document) -> str:
    title = document.metadata.get("title")
    return f"{title} {document.page_content}" if title else document.page_content
