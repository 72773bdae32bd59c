"""Adapters of documents that an index no longer has are found and removed, wherever the index is kept."""

import shutil

import pytest
from llama_index.core import Document, SummaryIndex, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.errors import StoreError
from llamaindex_prag.llama_index import ParametricDocumentStore, reconcile
from llamaindex_prag.llama_index.index_contents import contents_of
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import TEXTS
from tests.llamaindex_prag.llama_index.indexes import EMBED, build, deleted_plainly, documents, known, reload, two_nodes
from tests.llamaindex_prag.made import random_values


class KeepingTexts(SimpleVectorStore):
    stores_text: bool = True


def test_reconcile_removes_adapters_of_documents_deleted_from_a_plainly_loaded_index(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0, 1, 2)
    deleted_plainly(tmp_path / "index", 0)
    assert known(llm) == [True, True, True]
    would = reconcile(tmp_path / "index", store=store, dry_run=True)
    assert dict(would.documents) == {"doc-0": [text_hash(TEXTS[0])]}
    assert list(would.removed_texts) == [text_hash(TEXTS[0])]
    assert known(llm) == [True, True, True]
    did = reconcile(tmp_path / "index", store=store)
    assert (dict(did.documents), list(did.removed_texts)) == (dict(would.documents), list(would.removed_texts))
    assert known(llm) == [False, True, True]
    assert not reconcile(tmp_path / "index", store=store).documents


def test_a_moved_index_is_recognised(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0, 1, 2)
    shutil.move(tmp_path / "index", tmp_path / "elsewhere")
    deleted_plainly(tmp_path / "elsewhere", 2)
    assert reconcile(tmp_path / "elsewhere", store=store).removed_texts == [text_hash(TEXTS[2])]


def test_a_document_removed_from_the_index_alone_counts_as_deleted(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0, 1)
    index = reload(tmp_path / "index")
    index.delete_ref_doc("doc-0")
    assert index.docstore.document_exists  # LlamaIndex keeps the text by default
    assert reconcile(index, store=store).removed_texts == [text_hash(TEXTS[0])]
    assert known(llm) == [False, True, True]


@pytest.mark.parametrize("method", ["update_ref_doc", "refresh_ref_docs"])
@pytest.mark.parametrize("plain", [True, False])
def test_the_old_text_of_a_changed_document_loses_its_adapter(llm, store, tmp_path, method, plain):
    build(llm, tmp_path / "index", 0, 1)
    index = reload(tmp_path / "index", None if plain else llm)
    changed = Document(text=TEXTS[3], id_="doc-0")
    getattr(index, method)(changed if method == "update_ref_doc" else [changed, *documents(1)])
    if plain:
        assert known(llm) == [True, True, True]
        assert reconcile(index, store=store).removed_texts == [text_hash(TEXTS[0])]
    assert known(llm) == [False, True, True]


@pytest.mark.parametrize("from_docstore", [True, False])
def test_reconcile_finds_nodes_deleted_from_a_plain_document_store(llm, store, from_docstore):
    index = two_nodes(llm, SimpleDocumentStore())
    index.delete_nodes(["node-1"], delete_from_docstore=from_docstore)
    assert reconcile(index, store=store).removed_texts == [text_hash(TEXTS[1])]


def test_two_indexes_can_share_a_store_and_a_document(llm, store, tmp_path):
    build(llm, tmp_path / "a", 0, 1)
    build(llm, tmp_path / "b", 1, 2)
    deleted_plainly(tmp_path / "a", 0, 1)
    told = reconcile(tmp_path / "a", store=store, allow_empty=True)
    assert list(told.removed_texts) == [text_hash(TEXTS[0])]
    assert set(told.kept) == {"doc-1", "doc-2"}
    assert all(why.startswith("another index holds it") for why in told.kept.values())
    assert known(llm) == [False, True, True]
    reload(tmp_path / "b", llm).delete_ref_doc("doc-1", delete_from_docstore=True)
    assert known(llm) == [False, False, True]


def test_a_passage_of_two_documents_is_removed_with_the_second(llm, store, tmp_path):
    store.own_also("doc-1", [text_hash(TEXTS[0])])
    build(llm, tmp_path / "index", 0, 1, 2)
    deleted_plainly(tmp_path / "index", 0)
    store.own("doc-1", [text_hash(TEXTS[0])])
    storage = ParametricDocumentStore.from_persist_dir(str(tmp_path / "index"), llm=llm)
    storage.add_documents([TextNode(text=TEXTS[0], id_="doc-1")])
    assert not reconcile(storage, store=store).removed_texts
    assert llm.model.knows(TEXTS[0])
    storage.delete_document("doc-1")
    assert not llm.model.knows(TEXTS[0])


def test_documents_of_unknown_indexes_stay_unless_only_is_given(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0, 1, docstore=SimpleDocumentStore())
    deleted_plainly(tmp_path / "index", 0)
    told = reconcile(tmp_path / "index", store=store)
    assert (told.documents, set(told.kept)) == ({}, {"doc-0", "doc-2"})
    assert "no index is known" in told.kept["doc-0"]
    would = reconcile(tmp_path / "index", store=store, only=True, dry_run=True)
    assert set(would.documents) == {"doc-0", "doc-2"}
    reconcile(tmp_path / "index", store=store, only=True)
    assert known(llm) == [False, True, False]


def test_warm_up_adapters_are_never_removed(llm, store, tmp_path):
    key = llm.model.key("questions")
    layout = llm.model.layout
    store.put(key, Adapter(layout, random_values(layout, 9, 0.1), 2.0), {}, owners=["warm-up 0123"])
    build(llm, tmp_path / "index", 0)
    reconcile(tmp_path / "index", store=store, only=True)
    assert key in store


def test_an_index_without_any_document_of_the_store_is_rejected(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0)
    deleted_plainly(tmp_path / "index", 0)
    with pytest.raises(AdapterError, match=r"has no document\. Nothing was removed.*allow_empty"):
        reconcile(tmp_path / "index", store=store)
    stranger = VectorStoreIndex.from_documents([Document(text=TEXTS[0], id_="x")], embed_model=EMBED)
    with pytest.raises(AdapterError, match="belongs to another store"):
        reconcile(stranger, store=store, only=True)
    assert known(llm) == [True, True, True]
    reconcile(tmp_path / "index", store=store, allow_empty=True)
    assert known(llm) == [False, True, True]


def test_folders_and_stores_that_are_not_readable_indexes_are_rejected(llm, store, tmp_path):
    with pytest.raises(ConfigurationError, match="holds no index"):
        reconcile(tmp_path, store=store)
    (tmp_path / "docstore.json").write_text("[")
    with pytest.raises(ConfigurationError, match="cannot be read, nothing was removed"):
        reconcile(tmp_path, store=store)
    keeping = VectorStoreIndex.from_vector_store(KeepingTexts(), embed_model=EMBED)
    with pytest.raises(ConfigurationError, match="give all nodes of the index"):
        reconcile(keeping, store=store)
    nodes = [TextNode(text=text, id_=f"doc-{i}") for i, text in enumerate(TEXTS[:2])]
    assert reconcile(nodes, store=store, only=True).removed_texts == [text_hash(TEXTS[2])]


def test_a_read_only_store_can_be_compared_but_not_changed(llm, store, lm, tmp_path):
    build(llm, tmp_path / "index", 0, 1)
    deleted_plainly(tmp_path / "index", 0)
    with LMDBStore(store.path, model=lm.fingerprint, readonly=True) as readonly:
        assert reconcile(tmp_path / "index", store=readonly, dry_run=True).removed_texts == [text_hash(TEXTS[0])]
        with pytest.raises(StoreError, match="readonly=True"):
            reconcile(tmp_path / "index", store=readonly)
    assert known(llm) == [True, True, True]


def test_a_whole_document_keeps_the_adapters_of_its_parts(llm, store):
    """The document store of a pipeline holds the input documents, and their nodes are elsewhere."""
    store.own("whole", [text_hash(text) for text in TEXTS[:2]])
    docstore = SimpleDocumentStore()
    docstore.add_documents([Document(text=" ".join(TEXTS[:2]), id_="whole")])
    assert not reconcile(docstore, store=store).documents


def test_other_kinds_of_indexes_can_be_read(llm):
    index = SummaryIndex([TextNode(text=TEXTS[0], id_="doc-0")])
    assert set(contents_of(index).documents) == {"doc-0"}
