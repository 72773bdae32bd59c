"""Recipes on the command line: changes, the options that name a recipe, and stores of other recipes."""

import shlex

import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.recipe import DISTILL, PRAG, WARM_UP, get_recipe
from llamaindex_prag.adapters.recipe_options import changes_of, options_of, refuse_other_recipes
from llamaindex_prag.parametric_model import ParametricModel
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_values

SILENT = DISTILL.changed(acts_from="answer", silence=16)


def test_values_are_json_or_plain_text():
    given = ["rank=2", 'acts_from="answer"', "schedule=constant", "layers=[1, 2]", "name=a=b", "targets=null"]
    assert changes_of(given[:5]) == {
        "rank": 2,
        "acts_from": "answer",
        "schedule": "constant",
        "layers": (1, 2),
        "name": "a=b",
    }
    with pytest.raises(ConfigurationError, match="targets is None"):
        changes_of(given)


def test_a_whole_number_for_a_fractional_value_gives_the_same_key():
    assert get_recipe("distill", **changes_of(["alpha=16", "weight_decay=0"])).key == DISTILL.key
    assert get_recipe("distill", **changes_of(["acts_from=answer", "silence=16"])).key == SILENT.key
    assert type(changes_of(["layers=1"])["layers"]) is float
    assert type(changes_of(["rank=1"])["rank"]) is int


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rank"], "'rank' is not of the form NAME=VALUE, such as rank=2"),
        (["=2"], "'=2' is not of the form"),
        (["rank="], "'rank=' is not of the form"),
        (["rank=2", "rank=4"], "names rank twice"),
        (["rnak=2"], "a recipe has no argument 'rnak'.*rank"),
        (["rank=two"], "rank is 'two'"),
        (["rank=2.5"], "rank is 2.5"),
        (["rank=true"], "rank is True"),
        (["acts_from=end"], "acts_from is 'end'; known: 'prompt', 'answer'"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ConfigurationError, match=message):
        changes_of(given)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (DISTILL, "--recipe distill"),
        (PRAG.changed(augmentation="rules"), "--recipe prag --change augmentation=rules"),
        (SILENT, "--recipe distill --change silence=16 --change acts_from=answer"),
        (DISTILL.changed(name="2", layers=(1, 2)), "--recipe distill --change 'name=\"2\"' --change 'layers=[1, 2]'"),
        (PRAG.changed(name="my own"), "--recipe prag --change 'name=my own'"),
    ],
)
def test_a_recipe_is_named_by_options_that_give_it_again(recipe, options):
    assert options_of(recipe) == options
    _, name, *rest = shlex.split(options)
    assert get_recipe(name).changed(**changes_of(rest[1::2])).key == recipe.key


def test_a_store_of_other_recipes_is_refused_with_the_options_of_those_it_holds(lm, store):
    refuse_other_recipes(store, DISTILL, "")  # it is empty
    model = ParametricModel(lm, store, recipe=DISTILL)

    def keep(recipe, text):
        made = ParametricModel(lm, store, recipe=recipe)
        adapter = Adapter(made.layout, random_values(made.layout, len(text)), 1.0)
        store.put(made.key(text), adapter, {"recipe": made.recipe.to_dict()})

    keep(WARM_UP, "a warm-up")
    refuse_other_recipes(store, model.recipe, "")  # belongs to no document
    keep(SILENT, "one")
    keep(SILENT, "two")
    keep(PRAG, "three")
    with pytest.raises(ConfigurationError) as raised:
        refuse_other_recipes(store, model.recipe, "Do this.")
    assert str(raised.value) == (
        "the store has no adapter of the recipe --recipe distill; its adapters were trained with "
        "--recipe distill --change silence=16 --change acts_from=answer; --recipe prag --change augmentation=rules. "
        "Do this."
    )
    refuse_other_recipes(store, SILENT, "")
