"""Tests that copies share the model, and that saved nodes keep their adapters."""

import copy
import pickle

import pytest
from llama_index.core.schema import NodeWithScore

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.llama_index import (
    MiniLMEmbedding,
    ParametricDocumentStore,
    ParametricLLM,
    ParametricNodePostprocessor,
    ParametrizeNodes,
)
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.minilm import MiniLM
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, node
from tests.tiny import tiny_folder

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "model_copy": lambda m: m.model_copy(deep=True)}


@pytest.mark.parametrize("way", COPIES)
def test_copies_of_objects_with_an_llm_work(llm, way):
    for post in (
        ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error"),
        ParametricNodePostprocessor(llm=llm, route="retrieval", forgetting=1.0, conflicts="latest"),
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


def test_unpickling_loads_the_model_again(tmp_path):
    loaded = CausalLM.from_pretrained(tiny_folder(tmp_path / "tiny"), dtype="float32")
    with LMDBStore(tmp_path / "adapters", model=loaded.fingerprint, map_size=1 << 26) as store:
        llm = ParametricLLM(lm=loaded, store=store, recipe="prag", max_adapters=2, max_new_tokens=5)
        post = ParametricNodePostprocessor(
            llm=llm, route="retrieval", missing="context", max_active=2, others="context", strength=0.5
        )
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


@pytest.mark.parametrize("way", COPIES)
def test_copies_share_the_model_but_not_the_settings(llm, way):
    again = COPIES[way](llm)
    assert again.model is llm.model
    assert again.complete("Who?").text == llm.complete("Who?").text
    again.max_new_tokens = 3
    assert llm.max_new_tokens == 12
    assert again.complete("Who?").additional_kwargs["completion_tokens"] <= 3
