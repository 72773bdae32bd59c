"""Lists the contents of a LlamaIndex index by document and text.

Contents are read from an index, a document store, a persisted folder, or nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.data_structs.data_structs import IndexDict, IndexGraph, IndexList, IndexStruct
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore import BaseDocumentStore, SimpleDocumentStore
from llama_index.core.storage.docstore.types import DEFAULT_PERSIST_FNAME as DOCUMENTS
from llama_index.core.storage.index_store import SimpleIndexStore
from llama_index.core.storage.index_store.types import DEFAULT_PERSIST_FNAME as INDEXES
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import DEFAULT_PERSIST_FNAME as VECTORS

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.store.reconcile import IndexContents, Reconciled
from llamaindex_prag.store.reconcile import reconcile as compare
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_name

IDENTITY = "dynprag"
"""Collection (after the namespace) and key of a document store's identity in its key-value store."""

Against = BaseIndex[Any] | BaseDocumentStore | str | Path | Iterable[BaseNode]


def reconcile(
    *against: Against, store: Any, only: bool = False, allow_empty: bool = False, dry_run: bool = False
) -> Reconciled:
    """Remove the adapters of documents and texts that indexes no longer have.

    Use it after deletions that the store did not notice: from a plain document store, which is what
    `StorageContext.from_defaults(persist_dir=...)` loads, or from a vector store that keeps texts itself.

    Args:
        against: Indexes, document stores, folders that `storage_context.persist` wrote, or all nodes of an index. If a
            vector store keeps the texts itself, it is asked for the nodes of its index.
        store: Store of the adapters: `llm.model.store`.
        only: Whether these are all indexes of the store, so that everything that none of them has is removed. Otherwise
            only documents are removed that one of them is known to have held (by its `ParametricDocumentStore`) and
            that no other index holds.
        allow_empty: Whether an index may have no document of the store, as after its last document was deleted.
        dry_run: Whether to only report what would be removed.

    Returns:
        What was removed or would be removed, and what was kept.

    Raises:
        ConfigurationError: If there is no index in a folder, or a vector store cannot list its nodes.
        AdapterError: If an index has no document of the store and `allow_empty` is False.

    Example:
        >>> reconcile(index, store=llm.model.store, dry_run=True)  # doctest: +SKIP
    """
    found = [contents_of(one) for one in against]
    return compare(store, found, only=only, allow_empty=allow_empty, dry_run=dry_run)


def contents_of(against: Against) -> IndexContents:
    """Return the contents of an index; see `reconcile` for what `against` can be."""
    if isinstance(against, str | Path):
        return _of_folder(Path(against))
    if isinstance(against, BaseDocumentStore):
        return _of_docstore(against, [], {}, "the document store")
    if not isinstance(against, BaseIndex):
        return IndexContents(name="the nodes given", documents=_by_document(against))
    kept = getattr(against, "vector_store", None)
    if kept is not None and kept.stores_text and not _listed([against.index_struct], None):
        try:
            nodes = kept.get_nodes(node_ids=None)
        except (NotImplementedError, ValueError) as error:
            raise ConfigurationError(
                f"{type(kept).__name__} keeps the texts itself and cannot list them ({error}); give all nodes of the "
                "index instead, or build the index with store_nodes_override=True"
            ) from error
        return IndexContents(name=f"the index in {type(kept).__name__}", documents=_by_document(nodes))
    # Other indexes may share the document store; it is not known which of them a document belongs to.
    storage = against.storage_context
    others = [one for one in storage.index_store.index_structs() if one.index_id != against.index_id]
    structs = [against.index_struct, *others]
    return _of_docstore(against.docstore, structs, storage.vector_stores, f"the index {against.index_id}")


def identity_of(docstore: BaseDocumentStore) -> str | None:
    """Return the identity of a `ParametricDocumentStore`, even if it was loaded as a plain one; None without one."""
    if not isinstance(docstore, SimpleDocumentStore):
        return getattr(docstore, "known_identity", None)
    for collection, rows in docstore.to_dict().items():
        if collection.endswith(f"/{IDENTITY}") and IDENTITY in rows:
            return str(rows[IDENTITY]["id"])
    return None


def document_of(node: BaseNode) -> str:
    """Return the ID of the document that a node belongs to, as used in adapter stores."""
    return node.ref_doc_id or node.node_id


def _of_folder(folder: Path) -> IndexContents:
    name = clean_name(str(folder))
    if not (folder / DOCUMENTS).is_file():
        raise ConfigurationError(
            f"{name} holds no index: it has no {DOCUMENTS}. Name a folder that "
            "index.storage_context.persist(FOLDER) wrote"
        )
    try:
        docstore = SimpleDocumentStore.from_persist_dir(str(folder))
        indexes = SimpleIndexStore.from_persist_dir(str(folder)) if (folder / INDEXES).is_file() else SimpleIndexStore()
        # Vector stores that keep texts themselves persist no file.
        vectors = SimpleVectorStore.from_namespaced_persist_dir(str(folder)) if any(folder.glob(f"*{VECTORS}")) else {}
        return _of_docstore(docstore, indexes.index_structs(), vectors, f"the index in {name}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"the index in {name} cannot be read, nothing was removed: {error}") from error


def _of_docstore(
    docstore: BaseDocumentStore, structs: Sequence[IndexStruct], vectors: Mapping[str, Any], name: str
) -> IndexContents:
    """Return the contents of a document store, restricted to the nodes that its indexes list, if they list any."""
    nodes = docstore.docs
    identity = identity_of(docstore)
    ids = (identity,) if identity else ()
    simple = [v for v in vectors.values() if isinstance(v, SimpleVectorStore) and not v.stores_text]
    exact = bool(simple) and len(simple) == len(vectors)
    listed = _listed(structs, {id_ for v in simple for id_ in v.data.embedding_dict} if exact else None)
    if listed is not None and (exact or not listed.isdisjoint(nodes)):
        here = {document_of(node) for id_, node in nodes.items() if id_ in listed}
        # Parents of listed nodes are not listed, but an auto-merging retriever returns them instead of their children.
        used = [n for id_, n in nodes.items() if id_ in listed or (n.child_nodes and document_of(n) in here)]
        return IndexContents(name=name, documents=_by_document(used), ids=ids)
    documents = _by_document(nodes.values())
    # Inputs of a pipeline, whose nodes are elsewhere; the texts made from them are not known here.
    documents |= {id_: None for id_, node in nodes.items() if node.source_node is None}
    return IndexContents(name=name, documents=documents, ids=ids)


def _by_document(nodes: Iterable[BaseNode]) -> dict[str, frozenset[str] | None]:
    found: dict[str, frozenset[str] | None] = {}
    for node in nodes:
        # A postprocessor may replace the text with metadata, as sentence windows do.
        told = [value for value in node.metadata.values() if isinstance(value, str)]
        texts = {text_hash(text) for text in (node.get_content(MetadataMode.NONE), *told)}
        found[document_of(node)] = (found.get(document_of(node)) or frozenset()) | texts
    return found


def _listed(structs: Sequence[IndexStruct], vectors: Collection[str] | None) -> frozenset[str] | None:
    """Return the IDs of nodes that are listed by indexes and still have a vector; None for other kinds of indexes."""
    found: set[str] = set()
    for struct in structs:
        if isinstance(struct, IndexDict):  # `delete_nodes` does not update this list
            found.update(node for id_, node in struct.nodes_dict.items() if vectors is None or id_ in vectors)
        elif isinstance(struct, IndexList):
            found.update(struct.nodes)
        elif isinstance(struct, IndexGraph):
            found.update(struct.all_nodes.values())
        else:
            return None
    return frozenset(found) if structs else None
