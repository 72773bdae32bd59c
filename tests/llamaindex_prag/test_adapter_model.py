"""A model with adapters: which adapter a passage has, and what a model refuses to do."""

import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.parametric_model import ParametricModel
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.made import random_values

TEXT = "A bridge of forty-one arches crosses the river."


class InServer(ParametricModel):
    """A model whose answers another process computes."""

    in_server = True
    trainable = False


@pytest.fixture
def model(lm, store):
    return ParametricModel(lm, store, recipe="prag", max_adapters=2)


def test_a_passage_is_found_by_its_stripped_text_once_its_adapter_is_stored(model, store):
    assert (model.knows(TEXT), model.find(TEXT)) == (False, None)
    key = AdapterKey(store.model, model.recipe.key, text_hash(TEXT))
    store.put(key, Adapter(model.layout, random_values(model.layout, 0), 2.0), {})
    assert model.key(TEXT) == model.find(f" {TEXT}\n") == model.find_hash(text_hash(TEXT)) == key
    assert model.knows(TEXT)
    assert not model.knows(TEXT.upper())


def test_no_keys_select_nothing_and_too_many_are_refused(model):
    assert model.select([]) is None
    assert len(model.select([model.key("a"), model.key("b")])) == 2
    with pytest.raises(AdapterError, match="3 adapters were selected; the bank has room for 2"):
        model.select([model.key(text) for text in "abc"])


def test_a_local_model_trains_and_weighs_and_has_no_other_location(model):
    model.check_missing("train", "")
    model.check_weighing()
    assert (model.local, model.location(), model.translator_key) == (model, {}, None)
    with pytest.raises(ConfigurationError, match="^missing='translate' needs a translator; give one. No translator"):
        model.check_missing("translate", "; give one")


def test_a_model_in_a_server_refuses_to_train_and_to_weigh(lm, store):
    served = InServer(lm, store, recipe="prag")
    served.check_missing("context", "")
    with pytest.raises(ConfigurationError, match="^missing='train' needs the model's weights; name it$"):
        served.check_missing("train", "; name it")
    with pytest.raises(ConfigurationError, match="choose injection='parametric' or 'combined'"):
        served.check_weighing()
