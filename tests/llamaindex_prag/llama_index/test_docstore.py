"""Deletions from our document store reach the adapters."""

import copy

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.llama_index import ParametricDocumentStore, reconcile
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.llama_index.conftest import TEXTS, node
from tests.llamaindex_prag.llama_index.indexes import build, deleted_plainly, documents, known, reload, two_nodes


def test_deletions_reach_the_adapters_if_the_index_is_loaded_with_our_document_store(llm, tmp_path):
    build(llm, tmp_path / "index", 0, 1, 2)
    reload(tmp_path / "index", llm).delete_ref_doc("doc-0", delete_from_docstore=True)
    assert known(llm) == [False, True, True]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_deleting_a_node_removes_its_adapter(llm, asynchronous):
    index = two_nodes(llm, ParametricDocumentStore(llm=llm))
    if asynchronous:
        await index.adelete_nodes(["node-0"], delete_from_docstore=True)
    else:
        index.delete_nodes(["node-0"], delete_from_docstore=True)
    assert known(llm) == [False, True, True]
    assert llm.model.store.texts("both") == [text_hash(TEXTS[1])]


def test_an_adapter_stays_while_another_node_of_the_document_has_the_same_text(llm):
    index = two_nodes(llm, ParametricDocumentStore(llm=llm), second=TEXTS[0])
    index.delete_nodes(["node-0"], delete_from_docstore=True)
    assert llm.model.knows(TEXTS[0])
    index.delete_nodes(["node-1"], delete_from_docstore=True)
    assert not llm.model.knows(TEXTS[0])


def test_a_deletion_in_one_index_leaves_a_document_that_another_has(llm, tmp_path):
    a, b = build(llm, tmp_path / "a", 0), build(llm, tmp_path / "b", 0)
    a.delete_ref_doc("doc-0", delete_from_docstore=True)
    assert llm.model.knows(TEXTS[0])
    b.delete_ref_doc("doc-0", delete_from_docstore=True)
    assert not llm.model.knows(TEXTS[0])


def test_loading_our_document_store_logs_adapters_left_behind(llm, tmp_path, caplog):
    build(llm, tmp_path / "index", 0, 1)
    reload(tmp_path / "index", llm)
    assert "dynprag store gc" not in caplog.text
    deleted_plainly(tmp_path / "index", 1)
    reload(tmp_path / "index", llm)
    assert "doc-1" in caplog.text
    assert "dynprag store gc" in caplog.text


def test_documents_inserted_after_a_reload_are_recorded(llm, store, tmp_path):
    build(llm, tmp_path / "index", 0)
    index = reload(tmp_path / "index", llm)
    index.insert(documents(1)[0])
    index.storage_context.persist(str(tmp_path / "index"))
    deleted_plainly(tmp_path / "index", 1)
    reconcile(tmp_path / "index", store=store)
    assert known(llm) == [True, False, True]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_deleting_a_document_removes_its_adapters(llm, asynchronous):
    docstore = ParametricDocumentStore(llm=llm)
    storage = StorageContext.from_defaults(docstore=docstore)
    documents = [Document(text=text, id_=f"doc-{i}") for i, text in enumerate(TEXTS[:2])]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=storage, embed_model=MockEmbedding(8), store_nodes_override=True
    )
    if asynchronous:
        await index.adelete_ref_doc("doc-0", delete_from_docstore=True)
    else:
        index.delete_ref_doc("doc-0", delete_from_docstore=True)
    assert [llm.model.knows(text) for text in TEXTS[:2]] == [False, True]


def test_a_document_store_without_an_llm_deletes_nothing(llm):
    docstore = ParametricDocumentStore()
    with pytest.raises(AdapterError, match=r"docstore\.llm = llm"):
        docstore.delete_ref_doc("doc-0")


def test_deletions_in_a_copied_document_store_remove_adapters_too(llm):
    docstore = ParametricDocumentStore(llm=llm)
    storage = StorageContext.from_defaults(docstore=docstore)
    VectorStoreIndex([node(0)], storage_context=storage, embed_model=MockEmbedding(8), store_nodes_override=True)
    for again in (copy.copy(docstore), copy.deepcopy(docstore)):
        assert list(again.docs) == ["node-0"]
        assert again.llm.model is llm.model
    copy.deepcopy(docstore).delete_ref_doc("doc-1", raise_error=False)
    assert not llm.model.knows(TEXTS[1])
