"""Document stores whose deletions reach the adapters.

`index.delete_ref_doc(id, delete_from_docstore=True)` calls `docstore.delete_ref_doc`, and an `IngestionPipeline` calls
`delete_document` for a document that no longer exists; a document store of this kind then also removes the document's
adapters. It has an identity, which is persisted with it and under which the adapter store records its documents: a
document that another index also holds keeps its adapters, and `reconcile` (`dynprag store gc --against FOLDER`) knows
which documents this store once held.

`StorageContext.from_defaults(persist_dir=...)` loads a plain `SimpleDocumentStore`, whose deletions leave the adapters.
Load this class: `from_defaults(persist_dir=..., docstore=ParametricDocumentStore.from_persist_dir(..., llm=llm))`.

A `VectorStoreIndex` over a vector store that keeps texts itself (Chroma and most others) uses no document store
unless it is built with `store_nodes_override=True`; otherwise call `llm.model.store.remove_document(id)`, or
`reconcile`. (`ParametrizeNodes` handles *changed* documents.)
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Self

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.types import DEFAULT_PERSIST_DIR, DEFAULT_PERSIST_PATH
from llama_index.core.storage.kvstore.types import BaseInMemoryKVStore, MutableMappingKVStore

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.llama_index.index_contents import IDENTITY, Against, contents_of, document_of
from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.store.reconcile import left_behind
from rag_backbone.errors import AdapterError
from rag_backbone.text.unicode import clean_name

logger = logging.getLogger(__name__)
_NAMED = 5


class AdaptersFollow:
    """Mixin for a document store class, listed before it: `class Mine(AdaptersFollow, RedisDocumentStore): ...`.

    Set `llm` before anything is deleted.
    """

    llm: ParametricLLM | None = None
    purge: bool = True
    """Whether adapters are removed at once. A pipeline with `UPSERTS` deletes a changed document before it adds it
    again, even if only the metadata changed. Without `purge`, adapters of unchanged texts are kept and are not trained
    again, and adapters of texts without a document stay until `store.gc()` (`dynprag store gc`)."""
    _kvstore: Any
    _namespace: str

    def add_documents(self, docs: Sequence[BaseNode], *args: Any, **options: Any) -> None:
        """Add nodes, and record in the adapter store that this document store holds their documents."""
        super().add_documents(docs, *args, **options)  # type: ignore[misc]
        self._hold(docs)

    async def async_add_documents(self, docs: Sequence[BaseNode], *args: Any, **options: Any) -> None:
        """Add nodes asynchronously; see `add_documents`."""
        await super().async_add_documents(docs, *args, **options)  # type: ignore[misc]
        await asyncio.to_thread(self._hold, docs)

    def delete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """Delete a document, its nodes and its adapters.

        Adapters are kept if another document has the same text, or another index holds the document.

        Raises:
            AdapterError: If `llm` is not set. Nothing is deleted in that case.
        """
        # Adapters are removed first: a crash in between leaves a document that will be trained again, never an adapter
        # that answers for a deleted document.
        self._forget(ref_doc_id)
        super().delete_ref_doc(ref_doc_id, raise_error=raise_error)  # type: ignore[misc]

    async def adelete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """Delete a document asynchronously; see `delete_ref_doc`."""
        await asyncio.to_thread(self._forget, ref_doc_id)
        await super().adelete_ref_doc(ref_doc_id, raise_error=raise_error)  # type: ignore[misc]

    def delete_document(self, doc_id: str, *args: Any, **options: Any) -> None:
        """Delete a node and its adapter, or a document that a pipeline no longer finds and its adapters."""
        self._forget(doc_id)
        super().delete_document(doc_id, *args, **options)  # type: ignore[misc]

    async def adelete_document(self, doc_id: str, *args: Any, **options: Any) -> None:
        """Delete a node or document asynchronously; see `delete_document`."""
        await asyncio.to_thread(self._forget, doc_id)
        await super().adelete_document(doc_id, *args, **options)  # type: ignore[misc]

    @property
    def known_identity(self) -> str | None:
        """ID under which adapter stores know this document store; None before it has one."""
        row = self._kvstore.get(IDENTITY, collection=self._identities)
        return None if row is None else str(row["id"])

    @property
    def _identities(self) -> str:
        return f"{self._namespace}/{IDENTITY}"

    def _forget(self, id_: str) -> None:
        """Release the adapters of a document, or the adapter of one of its nodes."""
        store, known = self._adapters(), self.known_identity
        node = self.get_document(id_, raise_error=False)  # type: ignore[attr-defined]
        keep: list[str] = []
        document = id_ if node is None else document_of(node)
        if document != id_:
            text, texts = text_hash(node.get_content(MetadataMode.NONE)), store.texts(document)
            if text not in texts or any(text == t for t in self._others(document, id_)):
                return
            keep = [t for t in texts if t != text]
        store.let_go([known] if known else [], document, keep, purge=self.purge)

    def _others(self, document: str, node_id: str) -> Iterable[str]:
        """Yield the hashes of the texts of a document's other nodes."""
        info = self.get_ref_doc_info(document)  # type: ignore[attr-defined]
        for other in info.node_ids if info else ():
            node = None if other == node_id else self.get_document(other, raise_error=False)  # type: ignore[attr-defined]
            if node is not None:
                yield text_hash(node.get_content(MetadataMode.NONE))

    def _hold(self, nodes: Iterable[BaseNode]) -> None:
        """Record the documents in the adapter store, but only if the identity will last as long as that record."""
        lasting = not isinstance(self._kvstore, MutableMappingKVStore | BaseInMemoryKVStore)
        if lasting or self.known_identity is not None:
            self._note({document_of(node) for node in nodes})

    def _note(self, documents: Iterable[str]) -> None:
        store = None if self.llm is None else self.llm.model.store
        if store is None or getattr(store, "readonly", False):  # no adapter is made in these cases, either
            return
        if self.known_identity is None:
            self._kvstore.put(IDENTITY, {"id": uuid.uuid4().hex}, collection=self._identities)
        store.hold(self.known_identity, documents)  # type: ignore[attr-defined]

    def _adapters(self) -> Any:
        if self.llm is None:
            raise AdapterError(
                f"this {type(self).__name__} does not know from which store to remove adapters; set docstore.llm = llm"
            )
        return self.llm.model.store


class ParametricDocumentStore(AdaptersFollow, SimpleDocumentStore):
    """LlamaIndex's `SimpleDocumentStore`, whose deletions also remove adapters.

    Args:
        args: Positional arguments of `SimpleDocumentStore`.
        llm: The LLM whose adapters are removed; can be set later.
        purge: See `AdaptersFollow.purge`.
        options: Keyword arguments of `SimpleDocumentStore`.

    Example:
        >>> docstore = ParametricDocumentStore.from_persist_dir("storage", llm=llm)  # doctest: +SKIP
        >>> storage = StorageContext.from_defaults(docstore=docstore, persist_dir="storage")  # doctest: +SKIP
        >>> index = load_index_from_storage(storage)  # doctest: +SKIP
    """

    def __init__(self, *args: Any, llm: ParametricLLM | None = None, purge: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.llm, self.purge = llm, purge

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str = DEFAULT_PERSIST_DIR,
        namespace: str | None = None,
        fs: Any = None,
        *,
        llm: ParametricLLM | None = None,
        purge: bool = True,
    ) -> Self:
        """Load a folder persisted by this class or by `SimpleDocumentStore`; see `from_persist_path`."""
        return cls._bound(super().from_persist_dir(persist_dir, namespace, fs), llm, purge)

    @classmethod
    def from_persist_path(
        cls,
        persist_path: str,
        namespace: str | None = None,
        fs: Any = None,
        *,
        llm: ParametricLLM | None = None,
        purge: bool = True,
    ) -> Self:
        """Load a file persisted by this class or by `SimpleDocumentStore`.

        Documents deleted in the meantime by a plain document store have left their adapters behind; this is logged at
        WARNING, with the remedy.
        """
        return cls._bound(super().from_persist_path(persist_path, namespace, fs), llm, purge)

    @classmethod
    def _bound(cls, loaded: SimpleDocumentStore, llm: ParametricLLM | None, purge: bool) -> Self:
        assert isinstance(loaded, cls)
        loaded.llm, loaded.purge = llm, purge
        if llm is not None:
            warn_of_left_behind(loaded, llm.model.store)
        return loaded

    def persist(self, persist_path: str = DEFAULT_PERSIST_PATH, fs: Any = None) -> None:
        """Persist the document store, with the identity under which the adapter store knows its documents."""
        if self.llm is not None:
            self._note(())
        super().persist(persist_path, fs)
        # A record made before the identity is on disk would belong to an unknown index forever.
        self._hold(self.docs.values())


def warn_of_left_behind(index: Against, store: Any) -> bool:
    """Log at WARNING if adapters of documents remain that an index no longer has; return whether there are any."""
    gone = left_behind(store, contents_of(index))
    if gone:
        logger.warning(
            "adapters of %d documents that a plain document store deleted or changed in their index are still in %s: "
            "%s%s. Remove them with dynprag store gc --store %s --against FOLDER (the persisted index), or with "
            "reconcile(index, store=llm.model.store)",
            len(gone),
            getattr(store, "path", ""),
            ", ".join(map(clean_name, gone[:_NAMED])),
            ", ..." if len(gone) > _NAMED else "",
            getattr(store, "path", "STORE"),
        )
    return bool(gone)
