"""Tests that adapters are made once in an ingestion pipeline, kept, and removed with their documents."""

import pytest
from llama_index.core import Document
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.llama_index import ParametricDocumentStore, ParametrizeNodes
from llamaindex_prag.parametrize import Parametrizer
from tests.llamaindex_prag.llama_index.conftest import TEXTS


@pytest.fixture
def transform(llm, monkeypatch):
    made = ParametrizeNodes(llm=llm, progress=False)
    made._parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None, questions=3))
    return made


def ingest(transform, documents):
    return IngestionPipeline(transformations=[SentenceSplitter(), transform], disable_cache=True).run(
        documents=documents
    )


def test_nodes_get_adapters_and_are_not_changed(llm, store, transform):
    nodes = ingest(transform, [Document(text=TEXTS[3], id_="new", metadata={"title": "A road"})])
    assert llm.model.knows(TEXTS[3])
    assert [n.text for n in nodes] == [TEXTS[3]]
    assert nodes[0].metadata == {"title": "A road"}
    assert store.owners(text_hash(TEXTS[3])) == ["new"]


def test_known_texts_cost_nothing_and_adapters_of_changed_texts_are_removed(llm, store, transform):
    forwards = llm.model.lm.engine.counts.forwards
    ingest(transform, [Document(text=TEXTS[0], id_="doc-0")])
    assert llm.model.lm.engine.counts.forwards == forwards
    ingest(transform, [Document(text=TEXTS[3], id_="doc-0")])
    assert llm.model.knows(TEXTS[3])
    assert not llm.model.knows(TEXTS[0])


def test_an_adapter_of_two_documents_stays_until_both_are_removed(llm, store, transform):
    ingest(transform, [Document(text=TEXTS[3], id_=name) for name in ("one", "two")])
    store.remove_document("one")
    assert llm.model.knows(TEXTS[3])
    store.remove_document("two")
    assert not llm.model.knows(TEXTS[3])


def test_a_document_missing_from_a_pipeline_run_loses_its_adapters(llm, transform):
    docstore = ParametricDocumentStore(llm=llm)
    pipeline = IngestionPipeline(
        transformations=[transform],
        docstore=docstore,
        vector_store=SimpleVectorStore(stores_text=True),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=True,
    )
    pipeline.transformations.append(MockEmbedding(8))
    pipeline.run(documents=[Document(text=TEXTS[0], id_="doc-0"), Document(text=TEXTS[1], id_="doc-1")])
    pipeline.run(documents=[Document(text=TEXTS[1], id_="doc-1")])
    assert [llm.model.knows(text) for text in TEXTS[:2]] == [False, True]


async def test_the_pipeline_runs_asynchronously(llm, transform):
    await IngestionPipeline(transformations=[transform], disable_cache=True).arun(documents=[Document(text=TEXTS[3])])
    assert llm.model.knows(TEXTS[3])


def test_a_pipeline_with_a_cache_makes_adapters(llm, transform):
    splitter = SentenceSplitter(chunk_size=400, chunk_overlap=0)
    text = " ".join(f"In {i} the river rose by {i + 3} feet." for i in range(100))
    nodes = IngestionPipeline(transformations=[splitter, transform]).run(documents=[Document(text=text, id_="long")])
    assert len(nodes) > 1
    assert all(llm.model.knows(n.text) for n in nodes)


def test_a_node_that_is_too_long_does_not_stop_a_pipeline(llm, transform, caplog):
    nodes = [TextNode(text="river " * 3000), TextNode(text=TEXTS[3])]
    assert transform(nodes) == nodes
    assert [llm.model.knows(n.text) for n in nodes] == [False, True]
    assert "Split it into passages" in caplog.text


def chunks(n, document="long", *, linked=True):
    splitter = SentenceSplitter(chunk_size=24, chunk_overlap=0, include_prev_next_rel=linked)
    text = " ".join(f"Stone {i} of the bridge was laid by the mason Aldous Wray in {1900 + i}." for i in range(n))
    return splitter.get_nodes_from_documents([Document(text=text, id_=document)])


def test_a_document_ingested_in_parts_keeps_the_adapters_of_all_parts(llm, store, transform):
    nodes = chunks(6)
    assert len(nodes) == 6
    for i in (0, 3):
        transform(nodes[i : i + 3])
    assert all(llm.model.knows(n.text) for n in nodes)
    assert len(store.texts("long")) == 6
    transform(chunks(6, linked=False)[:2])  # without links, it is unknown whether these are all nodes
    assert all(llm.model.knows(n.text) for n in nodes)
    transform(chunks(4))  # the whole document, now shorter
    assert [llm.model.knows(n.text) for n in nodes] == [True] * 4 + [False] * 2


def test_without_purge_documents_with_changed_metadata_are_not_trained_again(llm, store, transform):
    docstore = ParametricDocumentStore(llm=llm, purge=False)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), transform],
        docstore=docstore,
        vector_store=SimpleVectorStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
        disable_cache=True,
    )
    embedded = MockEmbedding(embed_dim=4)
    pipeline.transformations.append(embedded)
    pipeline.run(documents=[Document(text=TEXTS[3], id_="d", metadata={"date": "1"})])
    trained = store.record(llm.model.key(TEXTS[3]))
    forwards = llm.model.lm.engine.counts.forwards
    pipeline.run(documents=[Document(text=TEXTS[3], id_="d", metadata={"date": "2"})])
    assert llm.model.lm.engine.counts.forwards == forwards
    assert store.record(llm.model.key(TEXTS[3])) == trained
    docstore.delete_document("d")
    assert llm.model.knows(TEXTS[3])
    assert list(store.gc().removed_texts) == [text_hash(TEXTS[3])]
    assert not llm.model.knows(TEXTS[3])


def test_a_cached_pipeline_makes_removed_adapters_again_and_reuses_other_results(llm, store):
    transform = ParametrizeNodes(llm=llm, progress=False)
    transform._parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None, questions=3))
    pipeline = IngestionPipeline(transformations=[transform])
    document = Document(text=TEXTS[3], id_="road")
    pipeline.run(documents=[document])
    assert llm.model.knows(TEXTS[3])
    assert len(pipeline.cache.cache.get_all(collection=pipeline.cache.collection)) == 1
    pipeline.run(documents=[document])
    assert len(pipeline.cache.cache.get_all(collection=pipeline.cache.collection)) == 1
    store.remove_document("road")
    pipeline.run(documents=[document])
    assert llm.model.knows(TEXTS[3])


def test_a_cache_of_an_earlier_process_does_not_replace_making_adapters(llm, tmp_path):
    document = Document(text=TEXTS[0], id_="doc-0")
    pipeline = IngestionPipeline(transformations=[ParametrizeNodes(llm=llm, progress=False)])
    pipeline.run(documents=[document])
    pipeline.persist(str(tmp_path / "pipeline"))
    later = ParametrizeNodes(llm=llm, progress=False)
    called = []
    later._parametrizer = type("Spy", (), {"parametrize": lambda _, passages, **__: called.extend(passages)})()
    pipeline = IngestionPipeline(transformations=[later])
    pipeline.load(str(tmp_path / "pipeline"))
    pipeline.run(documents=[document])
    assert [p.text for p in called] == [TEXTS[0]]
