"""Tests of the document-free adapter and of documents that start from it."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL
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
    for recipe, start in ((still, None), (started, key)):
        model = ParametricModel(lm, store, recipe=recipe)
        assert not model.knows(passage.text)
        Parametrizer(model, start=start).parametrize([passage], progress=False)
        found[recipe.start] = store.get(model.key(passage.text)).buffer
    warmed = store.get(key).buffer
    assert np.allclose(found[key.digest], warmed, atol=1e-6)
    assert not np.allclose(found[""], warmed, atol=1e-6)


def test_recipe_and_start_must_name_the_same_adapter(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    started = ParametricModel(lm, store, recipe=RECIPE.changed(start=key.digest))
    with pytest.raises(ConfigurationError, match="must name the same adapter"):
        Parametrizer(started)
    with pytest.raises(ConfigurationError, match="must name the same adapter"):
        Parametrizer(ParametricModel(lm, store, recipe=RECIPE), start=key)


def test_a_start_that_is_missing_or_has_another_layout_is_rejected(lm, store):
    key = warm_up(lm, store, RECIPE, PAIRS)
    other = ParametricModel(lm, store, recipe=RECIPE.changed(rank=3, start=key.digest))
    with pytest.raises(AdapterError, match="but the store holds one of"):
        start_of(store, other.recipe, key, other.layout)
    layout = ParametricModel(lm, store, recipe=RECIPE.changed(start=key.digest)).layout
    assert torch.equal(
        start_of(store, RECIPE.changed(start=key.digest), key, layout), torch.from_numpy(store.get(key).buffer)
    )
    store.remove(key.text)
    with pytest.raises(AdapterError, match="holds no such adapter"):
        start_of(store, RECIPE.changed(start=key.digest), key, layout)


@pytest.mark.parametrize("pairs", [[], [("Who?", " ")], [("", "a mason")]])
def test_pairs_without_a_question_or_an_answer_are_rejected(lm, store, pairs):
    with pytest.raises(ConfigurationError, match="pair"):
        warm_up(lm, store, RECIPE, pairs)
