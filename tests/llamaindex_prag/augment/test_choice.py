"""How questions are generated: by the model if it is large enough, else by rules, unless the user has chosen."""

import pytest

from llamaindex_prag.adapters.recipe import DISTILL, PRAG, Recipe, get_recipe
from llamaindex_prag.augment import choice as augmenter_choice
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.choice import parameters_of, settled
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer

TEXT = "The Patient Anna is a ferry of 61 metres. She was built in 1974 at the Lodmoor yard in Brannoch."


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, map_size=1 << 26) as opened:
        yield opened


def made(lm, store, recipe):
    model = ParametricModel(lm, store, recipe=recipe)
    return model, Parametrizer(model)


def test_a_small_models_questions_are_generated_by_rule_and_a_warning_says_why(lm, store, caplog):
    model, parametrizer = made(lm, store, "prag")
    assert isinstance(parametrizer.augmenter, RuleAugmenter)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "rules generate the questions and nothing is rewritten, because tiny has 0M parameters" in record.message
    assert "fewer than 1,000M" in record.message
    assert "--augmentation model" in record.message
    before = lm.engine.counts
    assert parametrizer.parametrize([Passage(TEXT, "Patient Anna")], progress=False).trained == 1
    assert (lm.engine.counts - before).generated_tokens == 0
    told = store.record(model.key(TEXT))
    assert told["augmentation"] == {
        "by": "RuleAugmenter(questions=3)",
        "questions": {"cloze": 3},
        "left_out": 0,
        "rewrite": False,
    }
    assert told["recipe"]["augmentation"] == "rules"


def test_a_capable_model_writes_itself_as_published_and_keeps_its_key(lm, store, monkeypatch, caplog):
    monkeypatch.setattr(augmenter_choice, "CAPABLE", 1)
    model, parametrizer = made(lm, store, "prag")
    assert isinstance(parametrizer.augmenter, Augmenter)
    assert (parametrizer.augmenter.questions, parametrizer.augmenter.rewrite) == (3, True)
    assert model.recipe.key == PRAG.key
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_the_user_can_choose_the_models_questions(lm, store, caplog):
    model, parametrizer = made(lm, store, get_recipe("prag", augmentation="model"))
    assert isinstance(parametrizer.augmenter, Augmenter)
    assert parametrizer.augmenter.by == "model"
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    assert model.recipe.key == PRAG.key


def test_the_user_can_choose_rules_for_any_model(lm, store, monkeypatch, caplog):
    monkeypatch.setattr(augmenter_choice, "CAPABLE", 1)
    _, parametrizer = made(lm, store, get_recipe("prag", augmentation="rules"))
    assert isinstance(parametrizer.augmenter, RuleAugmenter)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_adapters_from_rules_and_from_a_models_questions_have_different_keys(lm, store):
    by_rule, parametrizer = made(lm, store, "prag")
    parametrizer.parametrize([Passage(TEXT)], progress=False)
    by_model = ParametricModel(lm, store, recipe=get_recipe("prag", augmentation="model"))
    assert by_rule.knows(TEXT)
    assert not by_model.knows(TEXT)
    assert by_rule.recipe.key != by_model.recipe.key


def test_an_augmenter_of_the_other_kind_is_refused_with_the_line_to_write(lm, store):
    model = ParametricModel(lm, store, recipe="prag")
    with pytest.raises(ConfigurationError, match=r"get_recipe\('prag', augmentation='model'\)"):
        Parametrizer(model, augmenter=Augmenter(lambda prompt: "", name="other"))
    asked = ParametricModel(lm, store, recipe=get_recipe("prag", augmentation="model"))
    with pytest.raises(ConfigurationError, match="augmentation='rules'"):
        Parametrizer(asked, augmenter=RuleAugmenter())
    Parametrizer(model, augmenter=Augmenter(None))  # without a model, this augmenter uses rules as well
    Parametrizer(asked, augmenter=Augmenter(lambda prompt: "", name="other"))


def test_keys_and_plain_data_of_recipes_without_an_explicit_choice_are_stable():
    assert DISTILL.key == "eeeda2854422e0f7b879f2aabdafe4e14ce74df82db0a6225bc0ef53a7886bf6"
    assert PRAG.key == "4a30a4e87f4fecc0749b55e0a08eb16191c4aa7a617555415aae33282009520a"
    assert "augmentation" not in PRAG.to_dict()
    rules = PRAG.changed(augmentation="rules")
    assert Recipe.from_dict(rules.to_dict()) == rules
    assert DISTILL.changed(augmentation="rules").key == DISTILL.key  # its questions come from rules anyway


def test_distill_is_settled_only_if_a_model_is_asked(lm):
    assert settled(DISTILL, lm) is DISTILL
    assert settled(DISTILL.changed(questions=4), lm).augmentation == "model"  # requested questions are the model's
    assert settled(PRAG, None).augmentation == "model"


def test_an_unknown_model_is_judged_by_the_existing_adapters(lm, store):
    assert settled(PRAG, None, store.keys).augmentation == "model"
    _, parametrizer = made(lm, store, "prag")
    parametrizer.parametrize([Passage(TEXT)], progress=False)
    assert settled(PRAG, None, store.keys).augmentation == "rules"
    by_model = ParametricModel(lm, store, recipe=get_recipe("prag", augmentation="model"))
    adapter = store.get(store.keys()[0])
    store.put(by_model.key(TEXT), adapter, {})
    assert settled(PRAG, None, store.keys).augmentation == "model"


def test_the_size_of_an_unloaded_model_comes_from_its_config(lm, tmp_path):
    folder = tiny_folder(tmp_path / "model")
    assert parameters_of(folder) == parameters_of(lm) == parameters_of({"name": str(folder)})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augmentation": "me"}, "augmentation is 'me'"),
        ({"augmentation": "model"}, "questions=8"),
        ({"augmentation": "rules", "questions": 3}, "raise phrases instead"),
    ],
)
def test_meaningless_choices_are_refused(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        get_recipe("distill", **changes)
