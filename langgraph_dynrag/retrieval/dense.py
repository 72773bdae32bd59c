"""Dense retrieval from a LangChain vector store, with similarities in the metadata."""

from __future__ import annotations

import unicodedata
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document

from langgraph_dynrag.retrieval.local_retriever import LocalRetriever
from langgraph_dynrag.retrieval.metadata import restored
from rag_backbone.text.unicode import clean_text


class DenseRetriever(LocalRetriever):
    """Retrieve the nearest documents from a vector store whose distance is one minus the cosine.

    A document's `metadata["score"]` is the cosine similarity of query and document.
    """

    store: Any
    """A LangChain `VectorStore` with `similarity_search_with_score`."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
    ) -> list[Document]:
        wanted = self._wanted(k)
        query = unicodedata.normalize("NFC", clean_text(query, "the query"))
        found = self.store.similarity_search_with_score(query, k=wanted)
        return [
            Document(d.page_content, id=d.id, metadata={**restored(d.metadata), "score": 1.0 - float(distance)})
            for d, distance in found
        ]
