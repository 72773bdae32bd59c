"""Dense retrieval from a LangChain vector store, with similarities in the metadata."""

from __future__ import annotations

import unicodedata
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from langgraph_dynrag.known_arguments import KnownArguments
from langgraph_dynrag.retrieval.metadata import restored
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_text


class DenseRetriever(KnownArguments, BaseRetriever):
    """Retrieve the nearest documents from a vector store whose distance is one minus the cosine.

    A document's `metadata["score"]` is the cosine similarity of query and document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: Any
    """A LangChain `VectorStore` with `similarity_search_with_score`."""
    k: int = Field(default=3, ge=1)
    """Maximum number of documents returned."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
    ) -> list[Document]:
        wanted = self.k if k is None else k
        if wanted < 1:
            raise ConfigurationError(f"k is {k}; at least 1 is needed")
        query = unicodedata.normalize("NFC", clean_text(query, "the query"))
        found = self.store.similarity_search_with_score(query, k=wanted)
        return [
            Document(d.page_content, id=d.id, metadata={**restored(d.metadata), "score": 1.0 - float(distance)})
            for d, distance in found
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        # BaseRetriever's own asynchronous method does not pass k on.
        sync = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=sync, k=k)
