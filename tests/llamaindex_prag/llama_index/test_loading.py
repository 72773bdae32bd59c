"""Serialised forms lead back to the same model and store, never silently to another."""

import json
import pickle

import pytest

from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM


@pytest.fixture
def folder(lm, tmp_path):
    """Folder of the saved tiny model."""
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def saved(folder, tmp_path):
    """An LLM whose model and store are loaded from folders."""
    loaded = CausalLM.from_pretrained(folder, dtype="float32")
    with LMDBStore(tmp_path / "adapters", model=loaded.fingerprint, encoding="float32", map_size=1 << 26) as store:
        yield ParametricLLM(lm=loaded, store=store, recipe="prag", max_adapters=2, max_new_tokens=5, strength=0.5)


def same(one, other):
    assert one.model.lm.fingerprint == other.model.lm.fingerprint
    assert one.model.lm is not other.model.lm
    assert one.model.store.path == other.model.store.path
    assert one.model.store.encoding == other.model.store.encoding
    assert one.model.recipe == other.model.recipe
    assert one.to_dict() == other.to_dict()


def test_an_llm_is_restored_from_json_with_its_model_and_store(saved):
    again = ParametricLLM.from_dict(json.loads(json.dumps(saved.to_dict())))
    same(saved, again)
    assert (again.max_new_tokens, again.strength, again.model.bank.max_adapters) == (5, 0.5, 2)


def test_objects_with_an_llm_are_restored_with_the_same_llm(saved):
    made = ParametricNodePostprocessor(llm=saved, missing="context", injection="combined")
    again = ParametricNodePostprocessor.from_dict(json.loads(json.dumps(made.to_dict())))
    same(saved, again.llm)
    assert (again.missing, again.injection) == ("context", "combined")
    transform = ParametrizeNodes.from_dict(json.loads(json.dumps(ParametrizeNodes(llm=saved, how="train").to_dict())))
    same(saved, transform.llm)


def test_another_process_gets_the_same_model(saved):
    # As LlamaIndex does with num_workers; the project itself neither stores nor reads pickles.
    same(saved, pickle.loads(pickle.dumps(saved)))
    transform = pickle.loads(pickle.dumps(ParametrizeNodes(llm=saved, progress=False)))
    same(saved, transform.llm)
    assert transform.progress is False


def test_an_llm_whose_model_exists_only_in_memory_needs_lm_and_cannot_be_pickled(llm, lm):
    data = llm.to_dict()
    assert data["lm"] is None
    with pytest.raises(ConfigurationError, match="made in memory"):
        ParametricLLM.from_dict(data)
    assert ParametricLLM.from_dict(data, lm=lm).model is llm.model
    for made in (llm, ParametrizeNodes(llm=llm)):
        with pytest.raises(ConfigurationError, match="lm of this LLM exist only in this process's memory"):
            pickle.dumps(made)


def test_a_serialised_description_cannot_enable_remote_code(saved):
    data = saved.to_dict()
    with pytest.raises(ConfigurationError, match="the description of a model has trust_remote_code"):
        ParametricLLM.from_dict({**data, "lm": {**data["lm"], "trust_remote_code": True}})
