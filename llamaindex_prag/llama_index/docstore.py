"""Document stores whose deletions reach the adapters.

`index.delete_ref_doc(id, delete_from_docstore=True)` calls `docstore.delete_ref_doc`, and an `IngestionPipeline` that
finds a document gone calls `delete_document`; a document store of this kind then removes the document's adapters as
well. A `VectorStoreIndex` over a vector store that keeps texts itself (Chroma and most others) uses no document store
unless it is made with `store_nodes_override=True`; without, call `llm.model.store.remove_document(id)`. (What *changed*
in a document is `ParametrizeNodes`' business.)
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.storage.docstore import SimpleDocumentStore

from llamaindex_prag.llama_index.llm import ParametricLLM
from rag_backbone.errors import AdapterError


class AdaptersFollow:
    """Mixed into a document store class, before it: `class Mine(AdaptersFollow, RedisDocumentStore): ...`.

    Set `llm` before anything is deleted.
    """

    llm: ParametricLLM | None = None
    purge: bool = True
    """Whether adapters go at once. A pipeline with `UPSERTS` deletes a changed document before it takes it up again,
    and a change of its metadata is one: without `purge`, adapters of texts that stay need not be made again, and those
    of texts that nobody has any more stay until `store.gc()` (`dynprag store gc`)."""

    def delete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """Delete a document, its nodes and its adapters; adapters of texts that another document has too stay.

        Raises:
            AdapterError: If `llm` is not set; nothing is deleted then.
        """
        # First the adapters: a crash in between leaves a document that is found and trained again, never an adapter
        # that answers for a document that is gone.
        self._forget(ref_doc_id)
        super().delete_ref_doc(ref_doc_id, raise_error=raise_error)  # type: ignore[misc]

    async def adelete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """The same, asynchronously."""
        await asyncio.to_thread(self._forget, ref_doc_id)
        await super().adelete_ref_doc(ref_doc_id, raise_error=raise_error)  # type: ignore[misc]

    def delete_document(self, doc_id: str, *args: Any, **options: Any) -> None:
        """Delete a document that a pipeline no longer finds, and its adapters."""
        self._forget(doc_id)
        super().delete_document(doc_id, *args, **options)  # type: ignore[misc]

    async def adelete_document(self, doc_id: str, *args: Any, **options: Any) -> None:
        """The same, asynchronously."""
        await asyncio.to_thread(self._forget, doc_id)
        await super().adelete_document(doc_id, *args, **options)  # type: ignore[misc]

    def _forget(self, document_id: str) -> None:
        store = self._adapters()
        if self.purge:
            store.remove_document(document_id)
        else:
            store.own(document_id, ())

    def _adapters(self) -> Any:
        if self.llm is None:
            raise AdapterError(
                f"this {type(self).__name__} does not know whose adapters follow its deletions; set docstore.llm = llm"
            )
        return self.llm.model.store


class ParametricDocumentStore(AdaptersFollow, SimpleDocumentStore):
    """LlamaIndex's `SimpleDocumentStore`, with adapters that follow its deletions.

    Args:
        llm: Whose adapters; may be set later, as after `from_persist_dir`.
        purge: See `AdaptersFollow.purge`.
        options: Those of `SimpleDocumentStore`.
    """

    def __init__(self, *args: Any, llm: ParametricLLM | None = None, purge: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.llm, self.purge = llm, purge
