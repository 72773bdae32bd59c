"""Tests that adapters are made once in an ingestion pipeline, kept, and removed with their documents."""

from typing import ClassVar

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.llama_index import ParametricDocumentStore, ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.llama_index.training_events import AdapterTrainingEvent
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.errors import AdapterError, ConfigurationError
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


def test_a_document_store_without_an_llm_deletes_nothing(llm):
    docstore = ParametricDocumentStore()
    with pytest.raises(AdapterError, match=r"docstore\.llm = llm"):
        docstore.delete_ref_doc("doc-0")


async def test_the_pipeline_runs_asynchronously(llm, transform):
    await IngestionPipeline(transformations=[transform], disable_cache=True).arun(documents=[Document(text=TEXTS[3])])
    assert llm.model.knows(TEXTS[3])


def test_an_interrupted_job_resumes_where_it_stopped(llm, store):
    passages = [Passage(f"In {1900 + i} the river rose in the town of Number {i}.", document=f"d{i}") for i in range(5)]
    parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None, questions=3), documents_at_once=2)
    original, trained = store.put, []

    def put(key, *args, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        original(key, *args, **options)
        trained.append(key)

    store.put = put
    with pytest.raises(KeyboardInterrupt):
        parametrizer.parametrize(passages, progress=False)
    del store.put
    assert sum(llm.model.knows(p.text) for p in passages) == 2
    report = parametrizer.parametrize(passages, progress=False)
    assert (report.trained, report.known) == (3, 2)
    assert all(store.owners(text_hash(p.text)) == [p.document] for p in passages)


def test_a_pipeline_with_a_cache_makes_adapters(llm, transform):
    splitter = SentenceSplitter(chunk_size=400, chunk_overlap=0)
    text = " ".join(f"In {i} the river rose by {i + 3} feet." for i in range(100))
    nodes = IngestionPipeline(transformations=[splitter, transform]).run(documents=[Document(text=text, id_="long")])
    assert len(nodes) > 1
    assert all(llm.model.knows(n.text) for n in nodes)


def test_too_long_sequences_are_left_out_and_a_passage_without_any_is_skipped(llm):
    text, long = "The bridge has 41 arches.", "word " * 2100
    given = {
        text_hash(text): Augmentation(long, (QA("How many arches?", "41"),)),
        text_hash(TEXTS[3]): Augmentation(None, (QA(long, "yes"),)),
    }
    parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None), augmentations=given)
    report = parametrizer.parametrize([Passage(text), Passage(TEXTS[3])], progress=False)
    assert (report.trained, report.skipped) == (1, 1)
    assert llm.model.knows(text)
    assert not llm.model.knows(TEXTS[3])
    assert "left out" in " ".join(report.notes[text_hash(text)])
    assert "nothing to train on" in report.notes[text_hash(TEXTS[3])][-1]


def test_a_passage_whose_training_diverges_is_skipped_and_the_others_are_stored(llm, monkeypatch):
    texts = [f"In {1900 + i} the river rose in the town of Number {i}." for i in range(3)]

    class Diverging(Trainer):
        def train(self, documents, advance=None):
            for trained in super().train(documents, advance):
                if trained.document.text == texts[1]:
                    trained.adapter.buffer[7] = float("nan")
                yield trained

    monkeypatch.setattr("llamaindex_prag.parametrize.Trainer", Diverging)
    report = Parametrizer(llm.model, augmenter=Augmenter(None)).parametrize(map(Passage, texts), progress=False)
    assert (report.trained, report.skipped) == (2, 1)
    assert [llm.model.knows(t) for t in texts] == [True, False, True]
    assert "training diverged" in report.notes[text_hash(texts[1])][-1]
    assert str(report) == f"2 trained, 0 known, 1 skipped ({report.seconds:.0f} s)"


@pytest.mark.parametrize(("text", "reason"), [("  \n", "it is blank"), ("river " * 3000, "Split it into passages")])
def test_a_passage_that_cannot_be_learnt_is_reported_and_the_others_are_learnt(llm, text, reason, caplog):
    parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None))
    report = parametrizer.parametrize([Passage(text, document="long.md"), Passage(TEXTS[3])], progress=False)
    assert (report.trained, report.skipped) == (1, 1)
    assert reason in report.notes[text_hash(text)][0]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "long.md" in caplog.text
    assert reason in caplog.text
    assert llm.model.knows(TEXTS[3])
    assert not llm.model.knows(text)


def test_a_node_that_is_too_long_does_not_stop_a_pipeline(llm, transform, caplog):
    nodes = [TextNode(text="river " * 3000), TextNode(text=TEXTS[3])]
    assert transform(nodes) == nodes
    assert [llm.model.knows(n.text) for n in nodes] == [False, True]
    assert "Split it into passages" in caplog.text


def test_recipes_are_found_by_name_and_validated():
    with pytest.raises(ConfigurationError, match="known: prag, distill"):
        get_recipe("lora")
    with pytest.raises(ConfigurationError, match="no ranks"):
        get_recipe("prag", ranks=3)
    with pytest.raises(ConfigurationError, match="rank is 0"):
        get_recipe("prag", rank=0)
    assert get_recipe("prag").key != get_recipe("prag", seed=1).key
    prag = get_recipe("prag")
    assert type(prag).from_dict(prag.to_dict()) == prag
    assert (prag.rank, prag.alpha, prag.scale, prag.learning_rate, prag.epochs) == (2, 32, 16, 3e-4, 1)


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


class Heard(BaseEventHandler):
    events: ClassVar[list] = []

    @classmethod
    def class_name(cls) -> str:
        return "Heard"

    def handle(self, event, **_):
        if isinstance(event, AdapterTrainingEvent):
            self.events.append(event)


@pytest.fixture
def heard():
    handler = Heard()
    handler.events.clear()
    get_dispatcher().add_event_handler(handler)
    yield handler.events
    get_dispatcher().event_handlers.remove(handler)


def test_progress_is_shown_and_sent_unless_it_is_disabled(llm, heard, capsys):
    nodes = [TextNode(text=f"In {1900 + i} the river rose in the town of Number {i}.") for i in range(3)]
    ParametrizeNodes(llm=llm, progress=False)(nodes[:1])
    ParametrizeNodes(llm=llm)(nodes[1:2], show_progress=False)
    assert (heard, capsys.readouterr().err) == ([], "")
    told = ParametrizeNodes(llm=llm)
    assert told.estimate(nodes).documents == 1
    told(nodes)
    assert "1/1 documents" in capsys.readouterr().err
    assert (heard[0].part, heard[0].of, heard[-1].made) == (0.0, 1, 1)
    assert heard[0].left == heard[0].estimated > 0


def test_a_query_that_waits_for_training_is_logged(llm, heard, caplog):
    found = NodeWithScore(node=TextNode(text=TEXTS[3], metadata={"title": "Roads"}), score=1.0)
    ParametricNodePostprocessor(llm=llm).postprocess_nodes([found], query_str="Who built a road?")
    (warned,) = [r.message for r in caplog.records if r.levelname == "WARNING" and "waits" in r.message]
    assert found.node.node_id in warned
    assert "is trained: about" in warned
    assert (heard[0].part, heard[-1].part) == (0.0, pytest.approx(1.0))
    assert heard[0].documents == [found.node.node_id]
