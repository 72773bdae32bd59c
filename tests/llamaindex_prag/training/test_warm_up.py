"""Tests of the document-free adapter and of documents that start from it."""

import numpy as np
import pytest
import torch
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.store import LMDBStore
from llamaindex_prag.training.warm_up import start_of, warm_up
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

PAIRS = [("Who built the bridge?", "a mason"), ("When was it built?", "1875")]
RECIPE = DISTILL.changed(rank=2, epochs=1, phrases=3, unrelated=0, with_passage=0)


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint) as opened:
        yield opened


def test_the_warm_up_is_trained_once_and_has_a_separate_recipe(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    assert warm_up(lm, store, RECIPE, PAIRS) == key
    assert store.record(key)["recipe"]["name"] == "warm_up"
    assert store.record(key)["steps"] == len(PAIRS)
    assert warm_up(lm, store, RECIPE, PAIRS[:1]) != key
    assert np.abs(store.get(key).buffer).max() > 0


def test_documents_with_a_warm_up_are_kept_apart_from_documents_without_one(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    still = RECIPE.changed(learning_rate=1e-9)  # documents stay at their start
    started = still.changed(start=key.digest)
    assert started.key != still.key
    passage = Passage("The Cooper's Bridge was built by Aldous Wray in 1875.", "Bridge")
    found = {}
    for recipe in (still, started):
        model = ParametricModel(lm, store, recipe=recipe)
        assert not model.knows(passage.text)
        Parametrizer(model).parametrize([passage], progress=False)
        found[recipe.start] = store.get(model.key(passage.text)).buffer
    warmed = store.get(key).buffer
    assert np.allclose(found[key.digest], warmed, atol=1e-6)
    assert not np.allclose(found[""], warmed, atol=1e-6)


def test_documents_start_from_it_when_an_index_or_a_question_trains_them(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    recipe = RECIPE.changed(learning_rate=1e-9, start=key.digest)
    llm = ParametricLLM(lm=lm, store=store, recipe=recipe)
    nodes = [TextNode(text=f"The bridge of {town} was built by Aldous Wray.") for town in ("Vold", "Tarn")]
    ParametrizeNodes(llm=llm)(nodes[:1])
    found = [NodeWithScore(node=nodes[1], score=0.5)]
    ParametricNodePostprocessor(llm=llm).postprocess_nodes(found, query_str="Who built the bridge?")
    for node in nodes:
        assert np.allclose(store.get(llm.model.key(node.text)).buffer, store.get(key).buffer, atol=1e-6)


def test_a_start_that_is_missing_or_has_another_layout_is_rejected(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    other = ParametricModel(lm, store, recipe=RECIPE.changed(rank=3, start=key.digest))
    with pytest.raises(AdapterError, match="which is of .*rank 2.* and not of .*rank 3"):
        start_of(store, other.recipe, other.layout)
    model = ParametricModel(lm, store, recipe=RECIPE.changed(start=key.digest))
    assert torch.equal(start_of(store, model.recipe, model.layout), torch.from_numpy(store.get(key).buffer))
    assert start_of(store, RECIPE, model.layout) is None
    store.remove(key.text)
    for making in (Parametrizer, lambda model: model.check_missing("train", "")):
        with pytest.raises(AdapterError, match=f"start from the adapter {key.digest[:12]}…, but the store does not"):
            making(model)
    model.check_missing("context", "")


@pytest.mark.parametrize("pairs", [[], [("Who?", " ")], [("", "a mason")]])
def test_pairs_without_a_question_or_an_answer_are_rejected(lm, store, pairs):
    with pytest.raises(ConfigurationError, match="pair"):
        warm_up(lm, store, RECIPE, pairs)
