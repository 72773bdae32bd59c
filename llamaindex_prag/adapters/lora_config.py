"""The form of an adapter as PEFT's `LoraConfig`, and back: rank, scale, targets and layers.

    Recipe        rank     alpha          targets            layers
    LoraConfig    r        lora_alpha     target_modules     layers_to_transform

A `LoraConfig` describes the update: which layers, rank and scale. Only a recipe describes the training: questions,
objective, learning rate. A recipe's adapters are plain LoRA. Every other option of a `LoraConfig` has to have its
default value, including options of PEFT versions that this module does not know.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PretrainedConfig, PreTrainedModel

FFN_TARGETS = ("gate_proj", "up_proj", "down_proj")
"""The feed-forward projections of the Llama and Qwen2 families, which PRAG (section 3.2) adapts."""

_REASONS = {
    "alora_invocation_tokens": "the adapter would be active for a part of the tokens only",
    "alpha_pattern": "a recipe has one alpha for all layers",
    "bias": "adapters change no biases",
    "exclude_modules": "a recipe names what is adapted, in target_modules and layers_to_transform",
    "fan_in_fan_out": "only nn.Linear layers are adapted, whose weights are (out, in)",
    "init_lora_weights": "training starts from a random A and a zero B",
    "layers_pattern": "a recipe numbers the decoder layers and needs no pattern to find them",
    "lora_dropout": "adapters are trained without dropout",
    "modules_to_save": "adapters bring no whole layers of their own",
    "rank_pattern": "a recipe has one rank for all layers",
    "target_parameters": "only nn.Linear layers are adapted",
    "trainable_token_indices": "adapters change no embeddings",
    "use_dora": "adapters do not rescale the weights that they are added to",
}
"""Why a recipe cannot express an option."""
_READ = {"r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform", "task_type", "peft_type"}
_NO_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",  # of embeddings, which trainable_token_indices and modules_to_save would adapt
    "inference_mode",
    "megatron_core",  # without megatron_config
    "peft_version",
    "qalora_group_size",  # without use_qalora
    "revision",
}


class Form(Protocol):
    """The values of a recipe that a `LoraConfig` holds as well."""

    @property
    def name(self) -> str:
        """The recipe's name, for messages."""

    @property
    def rank(self) -> int:
        """Rank of each update."""

    @property
    def alpha(self) -> float:
        """The update is multiplied by `alpha / rank`."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Last name components of the adapted linear layers."""

    @property
    def layers(self) -> tuple[int, ...] | float | None:
        """Decoder layer numbers, the fraction of layers counted from the last, or None for all."""


def lora_config_of(recipe: Form, model: PreTrainedModel | PretrainedConfig | int | None = None) -> LoraConfig:
    """Convert a recipe; see `Recipe.to_lora_config`."""
    with needed_for("Recipe.to_lora_config"):
        from peft import LoraConfig
    layers = recipe.layers
    if layers is not None:
        if model is not None:
            layers = tuple(layer_numbers(layers, _depth(model)))
        elif isinstance(layers, float) or min(layers, default=-1) < 0:
            raise ConfigurationError(
                f"the recipe {recipe.name!r} has layers={layers!r}, and which layers these are depends on the model's "
                "depth: give the model, its config or its number of layers, such as to_lora_config(model)"
            )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=int(recipe.alpha) if recipe.alpha.is_integer() else recipe.alpha,
        target_modules=list(recipe.targets),
        layers_to_transform=None if layers is None else list(layers),
        lora_dropout=0.0,
        bias="none",
    )


def values_of(config: LoraConfig) -> dict[str, Any]:
    """Return the values of a recipe that a `LoraConfig` describes; see `Recipe.from_lora_config`."""
    with needed_for("Recipe.from_lora_config"):
        from peft import LoraConfig, PeftConfig
    if not isinstance(config, LoraConfig) or config.peft_type != "LORA":
        kind = f"a {type(config).__name__}" if isinstance(config, PeftConfig) else shown(config)
        raise ConfigurationError(f"config is {kind}; adapters are plain LoRA, so a peft.LoraConfig is needed")
    given, defaults = config.to_dict(), LoraConfig().to_dict()
    for option in sorted(set(given) - _READ - _NO_EFFECT):
        value, default = given[option], defaults.get(option)
        if value != default and (value or default):
            reason = _REASONS.get(option, "that is more than plain LoRA")
            raise ConfigurationError(
                f"the LoraConfig has {option}={value!r}, and {reason}; it must be {option}={default!r}"
            )
    if config.task_type not in (None, "CAUSAL_LM"):
        raise ConfigurationError(
            f"the LoraConfig has task_type={getattr(config.task_type, 'value', config.task_type)!r}, and adapters are "
            "for models that predict the next token; it must be task_type='CAUSAL_LM'"
        )
    # Rank-stabilised scaling divides by sqrt(r) where a recipe divides by r.
    alpha = float(config.lora_alpha) * (math.sqrt(config.r) if config.use_rslora else 1.0)
    return {
        "rank": config.r,
        "alpha": alpha,
        "targets": _targets(config.target_modules),
        "layers": _layers(config.layers_to_transform),
    }


def layer_numbers(layers: tuple[int, ...] | float, count: int) -> list[int]:
    """Return the decoder layers that a recipe's `layers` names in a model of `count` layers, in ascending order.

    Raises:
        ConfigurationError: If none is named, or the model does not have one of them.
    """
    if isinstance(layers, float):
        return list(range(count - max(round(count * layers), 1), count))
    numbers = sorted({i % count for i in layers if -count <= i < count})
    if not numbers or len(numbers) < len(set(layers)):
        raise ConfigurationError(f"layers are {layers}; the model has layers 0 to {count - 1}")
    return numbers


def _targets(given: Any) -> tuple[str, ...]:
    """Return target names in a fixed order, which PEFT does not keep and a recipe's key depends on."""
    if not isinstance(given, set | list | tuple) or any("." in name for name in given):
        raise ConfigurationError(
            f"the LoraConfig has target_modules={given!r}, and a recipe names linear layers by the last part of their "
            "names, without patterns; it must be a list such as target_modules=['gate_proj', 'up_proj', 'down_proj']"
        )
    return tuple(t for t in FFN_TARGETS if t in given) + tuple(sorted(set(given) - set(FFN_TARGETS)))


def _layers(given: int | list[int] | None) -> tuple[int, ...] | None:
    """Return the numbers of the adapted layers, or None for all, which PEFT also writes as an empty list."""
    numbers = (given,) if isinstance(given, int) else tuple(given or ())
    if any(number < 0 for number in numbers):
        raise ConfigurationError(
            f"the LoraConfig has layers_to_transform={given!r}, and PEFT counts layers from the first only; it must "
            "name layers such as layers_to_transform=[14, 15]"
        )
    return numbers or None


def _depth(model: PreTrainedModel | PretrainedConfig | int) -> int:
    if isinstance(model, int):
        return model
    config = getattr(model, "config", model)
    if not hasattr(config, "get_text_config"):
        raise ConfigurationError(
            f"model is {shown(model)}; a model of Transformers, its config or its number of layers is needed"
        )
    return int(config.get_text_config().num_hidden_layers)
