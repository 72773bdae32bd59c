"""Dense retrieval from a LangChain vector store, with the similarity in the metadata."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from rag_backbone.errors import ConfigurationError


class DenseRetriever(BaseRetriever):
    """The nearest documents of a vector store whose distance is one minus the cosine.

    A document's `metadata["score"]` is the cosine of query and document.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: Any
    """A LangChain `VectorStore` with `similarity_search_with_score`."""
    k: int = Field(default=3, ge=1)
    """Documents returned at most."""

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
        found = self.store.similarity_search_with_score(query, k=wanted)
        return [
            Document(d.page_content, id=d.id, metadata={**d.metadata, "score": 1.0 - float(distance)})
            for d, distance in found
        ]
