"""Tests that copies share the model, and that saved nodes keep their adapters."""

import copy
import json
import logging
import pickle

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore
from workflows.context.serializers import JsonSerializer, PickleSerializer

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.llama_index import (
    MiniLMEmbedding,
    ParametricDocumentStore,
    ParametricLLM,
    ParametricNode,
    ParametricNodePostprocessor,
    ParametrizeNodes,
    markers,
)
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import AdapterError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.minilm import MiniLM
from tests.llamaindex_prag.llama_index.conftest import TEXTS, Fixed, node
from tests.llamaindex_prag.llama_index.test_query_engines import QUESTION, alone
from tests.tiny import tiny_folder

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "model_copy": lambda m: m.model_copy(deep=True)}


@pytest.fixture
def answered(llm):
    """A node of an answered query."""
    post = ParametricNodePostprocessor(llm=llm, missing="error", strength=0.5)
    (found,) = post.postprocess_nodes([NodeWithScore(node=node(0, page=3), score=0.7)], query_str=QUESTION)
    return found


def roundtrips():
    json_of = JsonSerializer()
    pickled = PickleSerializer()
    return {
        "dict": lambda n: ParametricNode.from_dict(n.to_dict()),
        "json": lambda n: ParametricNode.from_json(n.to_json()),
        "pydantic": lambda n: ParametricNode.model_validate_json(n.model_dump_json()),
        "pickle": lambda n: pickle.loads(pickle.dumps(n)),
        "workflow, json": lambda n: json_of.deserialize(json_of.serialize(n)),
        "workflow, pickle": lambda n: pickled.deserialize(pickled.serialize({"nodes": [n]}))["nodes"][0],
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }


@pytest.mark.parametrize("way", roundtrips())
@pytest.mark.parametrize("beside", [False, True])
def test_a_saved_node_is_restored_with_its_adapter(llm, answered, way, beside):
    given = answered.node.model_copy(update={"beside_text": beside})
    again = roundtrips()[way](given)
    assert type(again) is ParametricNode
    assert again == given
    assert again.get_content(MetadataMode.LLM) == given.get_content(MetadataMode.LLM)
    assert "⟦" not in json.dumps(again.to_dict(), ensure_ascii=False)
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=[NodeWithScore(node=again, score=0.7)]), llm=llm)
    if not beside:
        assert str(engine.query(QUESTION)) == alone(llm, 0, strength=0.5)


def test_a_node_saved_by_another_process_is_signed_again(answered, llm, monkeypatch):
    data = answered.node.to_dict()
    with monkeypatch.context() as elsewhere:  # each process has its own secret
        elsewhere.setattr(markers, "_SECRET", b"another process's secret")
        elsewhere.setattr(markers, "_issued", {})
        there = ParametricNode.from_dict(json.loads(json.dumps(data)))
        data, theirs = json.loads(json.dumps([there.to_dict(), there.get_content(MetadataMode.LLM)]))
    again = ParametricNode.from_dict(data)
    assert again == answered.node
    assert theirs != again.get_content(MetadataMode.LLM)  # the other process has a different signature
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=[NodeWithScore(node=again, score=0.7)]), llm=llm)
    assert str(engine.query(QUESTION)) == alone(llm, 0, strength=0.5)


def test_a_prompt_signed_by_another_process_is_logged(llm, answered, calls, caplog):
    signed = answered.node.get_content(MetadataMode.LLM)
    foreign = signed[:12] + ("A" if signed[12] != "A" else "B") + signed[13:]
    with caplog.at_level(logging.WARNING):
        llm.complete(f"{signed}\n{QUESTION}")
        assert not caplog.records
        llm.complete(f"{foreign}\n{QUESTION}")
    assert calls[-1][1] is None
    assert "a prompt holds 1 references to adapters that this process did not sign" in caplog.text


def test_a_saved_node_of_another_model_or_a_removed_document_raises(llm, answered, store):
    data = answered.node.to_dict()
    stranger = ParametricNode.from_dict({**data, "adapter": {**data["adapter"], "model": "0" * 64}})
    with pytest.raises(AdapterError, match="another model or recipe"):
        llm.complete(stranger.get_content(MetadataMode.LLM))
    store.remove_document("doc-0")
    with pytest.raises(AdapterError):
        llm.complete(ParametricNode.from_dict(data).get_content(MetadataMode.LLM))


@pytest.mark.parametrize("way", COPIES)
def test_copies_share_the_model_but_not_the_settings(llm, way):
    again = COPIES[way](llm)
    assert again.model is llm.model
    assert again.complete("Who?").text == llm.complete("Who?").text
    again.max_new_tokens = 3
    assert llm.max_new_tokens == 12
    assert again.complete("Who?").additional_kwargs["completion_tokens"] <= 3


@pytest.mark.parametrize("way", COPIES)
def test_copies_of_objects_with_an_llm_work(llm, way):
    for post in (
        ParametricNodePostprocessor(llm=llm, missing="error"),
        ParametricNodePostprocessor(llm=llm, forgetting=1.0, conflicts="latest"),
    ):
        post.postprocess_nodes([NodeWithScore(node=node(0), score=1.0)], query_str=QUESTION)
        again = COPIES[way](post)
        assert again.llm.model is llm.model
        found = again.postprocess_nodes([NodeWithScore(node=node(1), score=1.0)], query_str=QUESTION)
        assert found[0].node.adapter == llm.model.key(TEXTS[1])
    transform = ParametrizeNodes(llm=llm, progress=False)
    transform._parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None, questions=3))
    again = COPIES[way](transform)
    assert again.llm.model is llm.model
    again([node(3)])
    assert llm.model.knows(TEXTS[3])


def test_deletions_in_a_copied_document_store_remove_adapters_too(llm):
    docstore = ParametricDocumentStore(llm=llm)
    storage = StorageContext.from_defaults(docstore=docstore)
    VectorStoreIndex([node(0)], storage_context=storage, embed_model=MockEmbedding(8), store_nodes_override=True)
    for again in (copy.copy(docstore), copy.deepcopy(docstore)):
        assert list(again.docs) == ["node-0"]
        assert again.llm.model is llm.model
    copy.deepcopy(docstore).delete_ref_doc("doc-1", raise_error=False)
    assert not llm.model.knows(TEXTS[1])


def test_unpickling_loads_the_model_again(tmp_path):
    loaded = CausalLM.from_pretrained(tiny_folder(tmp_path / "tiny"), dtype="float32")
    with LMDBStore(tmp_path / "adapters", model=loaded.fingerprint, map_size=1 << 26) as store:
        llm = ParametricLLM(lm=loaded, store=store, recipe="prag", max_adapters=2, max_new_tokens=5)
        post = ParametricNodePostprocessor(llm=llm, missing="context", max_active=2, others="context", strength=0.5)
        again = pickle.loads(pickle.dumps(post))
        assert (again.missing, again.max_active, again.others, again.strength) == ("context", 2, "context", 0.5)
        assert again.llm.model.lm.fingerprint == loaded.fingerprint
        docstore = pickle.loads(pickle.dumps(ParametricDocumentStore(llm=llm, purge=False)))
        assert docstore.purge is False
        assert docstore.llm.model.store.path == store.path


def test_an_embedding_can_be_copied_and_pickled():
    embedding = MiniLMEmbedding(embed_batch_size=3)
    assert copy.deepcopy(embedding)._model is embedding._model
    assert copy.copy(embedding)._model is embedding._model
    again = pickle.loads(pickle.dumps(embedding))
    assert isinstance(again._model, MiniLM)
    assert (again.embed_batch_size, again._model.batch_size) == (3, 3)
