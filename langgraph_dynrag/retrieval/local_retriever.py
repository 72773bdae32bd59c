"""The base of this package's retrievers: a number of documents, which each search may change."""

from __future__ import annotations

from abc import abstractmethod

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from langgraph_dynrag.known_arguments import KnownArguments
from rag_backbone.errors import ConfigurationError


class LocalRetriever(KnownArguments, BaseRetriever):
    """A retriever that takes the number of documents from its field or from a search: `invoke(query, k=5)`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    k: int = Field(default=3, ge=1)
    """Maximum number of documents returned."""

    @abstractmethod
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        """Return the documents for a query."""

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        # BaseRetriever's own asynchronous method does not pass k on.
        sync = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=sync, k=k)

    def _wanted(self, k: int | None) -> int:
        """Return how many documents a search should return at most.

        Raises:
            ConfigurationError: If it asks for less than one.
        """
        wanted = self.k if k is None else k
        if wanted < 1:
            raise ConfigurationError(f"k is {k}; at least 1 is needed")
        return wanted
