"""A parametric model is attached to its engine explicitly, and shared as long as it is in use."""

import gc

import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.made import random_values

TEXT = "The bridge was built by Aldous Wray."


def answers(model):
    return [model.answer("Who?", documents=documents, max_new_tokens=8) for documents in ([], [TEXT])]


def test_a_model_answers_from_adapters_once_it_is_attached(lm, store):
    model = ParametricModel(lm, store, recipe="prag")
    store.put(model.key(TEXT), Adapter(model.layout, random_values(model.layout, 0), 2.0), {})
    with pytest.raises(AdapterError, match="no backend is attached"):
        answers(model)
    assert model.attach() is model
    base, adapted = answers(model)
    assert base != adapted


def test_creating_a_second_model_does_not_affect_the_first(lm, store):
    first = ParametricModel.of(lm, store, recipe="prag")
    store.put(first.key(TEXT), Adapter(first.layout, random_values(first.layout, 0), 2.0), {})
    before = answers(first)
    ParametricModel(lm, store, recipe="distill")
    assert answers(first) == before


def test_the_shared_model_lives_as_long_as_it_is_in_use(lm, store):
    model = ParametricModel.of(lm, store, recipe="prag")
    assert ParametricModel.of(lm, store, recipe="prag") is model
    with pytest.raises(ConfigurationError, match="already answers from"):
        ParametricModel.of(lm, store, recipe="distill")
    del model
    gc.collect()
    assert ParametricModel.of(lm, store, recipe="distill").recipe.name == "distill"


def test_adapters_that_act_from_the_answer_on_are_not_translated(lm, store):
    recipe = get_recipe("distill", acts_from="answer")
    with pytest.raises(ConfigurationError, match="a translator applies adapters to every token"):
        TranslatorConfig.of(lm, recipe=recipe)
    with pytest.raises(ConfigurationError, match="a translator applies adapters to every token"):
        ParametricModel(lm, store, recipe=recipe, translator=Translator(lm, TranslatorConfig.of(lm, width=16, heads=2)))
    with pytest.raises(ConfigurationError, match="a PeftModel applies adapters to every token"):
        ParametricModel(lm, store, recipe=recipe).to_peft([TEXT])
    with pytest.raises(ConfigurationError, match="a LoraConfig applies adapters to every token"):
        recipe.to_lora_config(3)
