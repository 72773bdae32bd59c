"""Recipes: what they refuse, and what their keys depend on."""

import json

import pytest

from llamaindex_prag.adapters.recipe import DISTILL, PRAG, RECIPES, Recipe, get_recipe
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize(
    ("recipe", "changes", "reason"),
    [
        (DISTILL, {"layers": 0.0}, "layers is 0.0"),
        (DISTILL, {"layers": 1.5}, "layers is 1.5"),
        (DISTILL, {"phrases": -1}, "phrases is -1"),
        (DISTILL, {"phrases": 0, "questions": 0}, "questions is 0"),
        (DISTILL, {"epochs": 0}, "epochs is 0"),
        (DISTILL, {"learning_rate": 0.0}, "learning_rate is 0"),
        (DISTILL, {"epsilon": 0.0}, "epsilon is 0"),
        (DISTILL, {"objective": "kl"}, "known: 'next_token', 'distill'"),
        (DISTILL, {"schedule": "cosine"}, "known: 'constant', 'linear'"),
        (DISTILL, {"targets": ()}, "targets is empty"),
        (PRAG, {"questions": 0}, "questions is 0"),
        (PRAG, {"phrases": 8}, "phrases is 8"),
    ],
)
def test_recipes_that_cannot_be_trained_are_refused_with_the_reason(recipe, changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        recipe.changed(**changes)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_a_recipe_survives_json_with_its_key(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert (again, again.key) == (recipe, recipe.key)
    assert recipe.changed(layers=(0, -1)).key != recipe.key


def test_another_version_of_prompts_or_rules_changes_the_key(monkeypatch):
    before = DISTILL.key
    monkeypatch.setattr("llamaindex_prag.adapters.recipe.SEQUENCES_VERSION", -1)
    assert DISTILL.key != before


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
