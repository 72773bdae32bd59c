"""Recipes to and from PEFT's `LoraConfig`: what PEFT then adapts, and what is refused."""

import pytest
from peft import AdaLoraConfig, LoHaConfig, LoraConfig, TaskType, get_peft_model

from llamaindex_prag.adapters.recipe import DISTILL, PRAG, Recipe
from llamaindex_prag.adapters.targets import layout_of
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama, tiny_qwen2


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
@pytest.mark.parametrize(
    "recipe",
    [
        PRAG,
        DISTILL,
        PRAG.changed(layers=(0, -1)),
        PRAG.changed(layers=0.5, rank=3, alpha=4.5, targets=("q_proj", "o_proj")),
    ],
    ids=repr,
)
def test_peft_adapts_the_layers_of_the_recipe_with_its_scale(recipe, make):
    layout = layout_of(make(), rank=recipe.rank, targets=recipe.targets, layers=recipe.layers)
    model = make()
    adapted = get_peft_model(model, recipe.to_lora_config(model)).base_model.model
    shapes = {
        n.removesuffix(".lora_A.default.weight"): tuple(p.shape)
        for n, p in adapted.named_parameters()
        if ".lora_A." in n
    }
    assert shapes == {t.name: (recipe.rank, t.inputs) for t in layout.targets}
    assert adapted.get_submodule(layout.targets[0].name).scaling == {"default": recipe.scale}


def test_a_models_depth_is_taken_from_the_model_its_config_or_a_number():
    model = tiny_llama()
    found = [DISTILL.to_lora_config(depth).layers_to_transform for depth in (model, model.config, 3)]
    assert found == [[2], [2], [2]]
    assert PRAG.to_lora_config().layers_to_transform is None
    assert PRAG.changed(layers=(1, 2)).to_lora_config().layers_to_transform == [1, 2]


@pytest.mark.parametrize(
    ("layers", "depth", "message"),
    [
        (0.5, None, r"layers=0.5.*depends on the model's depth.*to_lora_config\(model\)"),
        ((-1,), None, r"layers=\(-1,\).*depends on the model's depth"),
        ((), None, r"layers=\(\)"),
        ((), 3, r"layers are \(\)"),
        ((3,), 3, "layers 0 to 2"),
        (0.5, "tiny", "model is 'tiny'.*its config or its number of layers"),
    ],
)
def test_layers_that_the_model_does_not_decide_are_refused(layers, depth, message):
    with pytest.raises(ConfigurationError, match=message):
        PRAG.changed(layers=layers).to_lora_config(depth)


@pytest.mark.parametrize(
    "recipe", [PRAG, PRAG.changed(layers=(0, 2), targets=("down_proj", "k_proj", "q_proj"), alpha=4.5)], ids=repr
)
def test_a_recipe_comes_back_with_its_key(recipe):
    again = Recipe.from_lora_config(recipe.to_lora_config(), name="prag")
    assert (again, again.key) == (recipe, recipe.key)


def test_what_a_config_does_not_say_is_as_in_the_published_recipe_of_the_objective():
    again = Recipe.from_lora_config(DISTILL.to_lora_config(30), name="distill", objective="distill")
    assert again == DISTILL.changed(layers=tuple(range(20, 30)))
    assert Recipe.from_lora_config(PRAG.to_lora_config(), name="mine", epochs=2) == PRAG.changed(name="mine", epochs=2)
    with pytest.raises(ConfigurationError, match="a recipe has no epoch;"):
        Recipe.from_lora_config(PRAG.to_lora_config(), name="mine", epoch=2)
    with pytest.raises(ConfigurationError, match="objective is 'kl'"):
        Recipe.from_lora_config(PRAG.to_lora_config(), name="mine", objective="kl")


def test_rank_stabilised_scaling_becomes_the_alpha_of_the_same_scale():
    config = LoraConfig(r=16, lora_alpha=8, use_rslora=True, target_modules=["up_proj"], task_type=TaskType.CAUSAL_LM)
    recipe = Recipe.from_lora_config(config, name="rs")
    layer = get_peft_model(tiny_llama(), config).base_model.model.model.layers[0].mlp.up_proj
    assert recipe.scale == layer.scaling["default"] == 2.0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lora_dropout": 0.1}, "lora_dropout=0.1.*without dropout; it must be lora_dropout=0.0"),
        ({"bias": "lora_only"}, "bias='lora_only'.*it must be bias='none'"),
        ({"use_dora": True}, "use_dora=True.*it must be use_dora=False"),
        ({"rank_pattern": {"up_proj": 4}}, "rank_pattern={'up_proj': 4}.*one rank.*rank_pattern={}"),
        ({"alpha_pattern": {"up_proj": 4}}, "alpha_pattern={'up_proj': 4}.*one alpha.*alpha_pattern={}"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\].*modules_to_save=None"),
        ({"exclude_modules": ["lm_head"]}, "exclude_modules=.*exclude_modules=None"),
        ({"layers_to_transform": [1], "layers_pattern": "layers"}, "layers_pattern='layers'.*layers_pattern=None"),
        ({"layers_to_transform": [-1]}, r"layers_to_transform=\[-1\].*from the first only"),
        ({"init_lora_weights": "gaussian"}, "init_lora_weights='gaussian'.*zero B.*init_lora_weights=True"),
        ({"target_parameters": ["up"]}, "target_parameters="),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"lora_bias": True}, "lora_bias=True, and that is more than plain LoRA"),
        ({"layer_replication": [(0, 2), (1, 3)]}, "layer_replication="),
        ({"target_modules": r".*\.up_proj"}, "target_modules='.*'.*without patterns; it must be a list"),
        ({"target_modules": "all-linear"}, "target_modules='all-linear'"),
        ({"target_modules": ["mlp.up_proj"]}, "target_modules=.*last part of their names"),
        ({"target_modules": None}, "target_modules=None"),
        ({"target_modules": []}, "targets is empty"),
        ({"task_type": TaskType.SEQ_CLS}, "task_type='SEQ_CLS'.*task_type='CAUSAL_LM'"),
        ({"lora_alpha": 0}, "alpha is 0"),
    ],
    ids=str,
)
def test_a_config_of_more_than_plain_lora_is_refused_by_option_and_value(option, message):
    config = LoraConfig(**{"target_modules": ["up_proj"], **option})
    with pytest.raises(ConfigurationError, match=message):
        Recipe.from_lora_config(config, name="mine")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoHaConfig(target_modules=["up_proj"]), "a LoHaConfig.*a peft.LoraConfig is needed"),
        (AdaLoraConfig(target_modules=["up_proj"], total_step=9), "an? AdaLoraConfig.*a peft.LoraConfig is needed"),
        ({"r": 4}, r"\{'r': 4\} \(dict\).*a peft.LoraConfig is needed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_lora_config_is_read(config, message):
    with pytest.raises(ConfigurationError, match=message):
        Recipe.from_lora_config(config, name="mine")
