"""Indexes of the tests' documents: built, persisted, loaded in both ways, and with documents deleted."""

from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.llama_index import ParametricDocumentStore
from tests.llamaindex_prag.llama_index.conftest import TEXTS

EMBED = MockEmbedding(8)


def documents(*numbers):
    return [Document(text=TEXTS[i], id_=f"doc-{i}") for i in numbers]


def build(llm, folder, *numbers, docstore=None):
    storage = StorageContext.from_defaults(docstore=docstore or ParametricDocumentStore(llm=llm))
    index = VectorStoreIndex.from_documents(documents(*numbers), storage_context=storage, embed_model=EMBED)
    index.storage_context.persist(str(folder))
    return index


def reload(folder, llm=None):
    """Load an index as in LlamaIndex's manual, or, with an LLM, as in this project's."""
    docstore = None if llm is None else ParametricDocumentStore.from_persist_dir(str(folder), llm=llm)
    return load_index_from_storage(
        StorageContext.from_defaults(persist_dir=str(folder), docstore=docstore), embed_model=EMBED
    )


def known(llm):
    return [llm.model.knows(text) for text in TEXTS[:3]]


def deleted_plainly(folder, *numbers):
    index = reload(folder)
    assert type(index.docstore) is SimpleDocumentStore
    for i in numbers:
        index.delete_ref_doc(f"doc-{i}", delete_from_docstore=True)
    index.storage_context.persist(str(folder))
    return index


def two_nodes(llm, docstore, second=TEXTS[1]):
    """Build an index with one document of two nodes, both with adapters."""
    nodes = []
    for i, text in enumerate((TEXTS[0], second)):
        source = {NodeRelationship.SOURCE: Document(text="", id_="both").as_related_node_info()}
        nodes.append(TextNode(text=text, id_=f"node-{i}", relationships=source))
    store = llm.model.store
    for i in range(2):
        store.own(f"doc-{i}", ())
    store.own("both", [text_hash(n.text) for n in nodes])
    storage = StorageContext.from_defaults(docstore=docstore)
    return VectorStoreIndex(nodes, storage_context=storage, embed_model=EMBED)
