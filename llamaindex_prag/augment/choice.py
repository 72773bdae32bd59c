"""Whose questions a passage is learnt by, where nobody has said: the model's own, or those of rules.

    parameters >= CAPABLE      the model writes questions and rewrite, as PRAG publishes it
    parameters <  CAPABLE      rules make the questions (`rule_augmenter`), nothing is rewritten

The criterion is the size of the smallest model with which PRAG's authors publish results, Llama-3.2-1B (1.24 billion
parameters). A smaller one writes for minutes, and less of what it writes is about the passage. It is a property of the
model alone, not of a machine's speed or of single replies, so that a store's keys mean the same everywhere: a recipe is
settled once, and adapters made either way never share a key. What a user chooses (`augmentation=`) is not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.augment.augmentation import Augmentation
from llamaindex_prag.progress import Tick
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.adapter import AdapterKey
    from llamaindex_prag.augment.augmenter import JSONCache
    from rag_backbone.loading.causal_lm import CausalLM

logger = logging.getLogger(__name__)

CAPABLE = 1_000_000_000
"""Parameters from which on a model asks its own questions."""


class DocumentAugmenter(Protocol):
    """What makes the questions about passages: `Augmenter`, `RuleAugmenter`, or one of your own."""

    @property
    def by(self) -> Literal["model", "rules"]:
        """Under which kind of key the adapters are kept that are trained on them."""

    def augment_all(
        self, documents: Sequence[tuple[str, str]], *, progress: bool = True, advance: Tick | None = None
    ) -> list[Augmentation]:
        """Augment (title, text) pairs; `advance` is told each part of the work, all parts being 1."""


def settled(
    recipe: Recipe,
    lm: CausalLM | str | Path | Mapping[str, Any] | None,
    kept: Callable[[], Iterable[AdapterKey]] = tuple,
) -> Recipe:
    """The recipe with its `augmentation` decided; as it is, where the user has decided or nobody is asked.

    Args:
        recipe: Which.
        lm: The model, or what loads it. None: unknown.
        kept: Asked where the model is unknown for the adapters that there are: if some were made by rule, and none of a
            model's questions, it was a small one.
    """
    # Beside phrases, which are questions by rule, only a model's add anything: whoever asks for some wants those.
    if recipe.augmentation != "auto" or not recipe.questions:
        return recipe
    by_model = recipe.changed(augmentation="model")
    if recipe.phrases:
        return by_model
    by_rule = recipe.changed(augmentation="rules")
    if lm is not None:
        return by_rule if parameters_of(lm) < CAPABLE else by_model
    made_by = {key.recipe for key in kept()}
    return by_rule if by_rule.key in made_by and by_model.key not in made_by else by_model


def parameters_of(lm: CausalLM | str | Path | Mapping[str, Any]) -> int:
    """How many parameters a model has; of one that is not loaded by its config, without reading its weights."""
    if isinstance(lm, str | Path | Mapping):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from rag_backbone.loading.embedded import NAME, embedded_model_folder

        name, revision = (lm["name"], lm.get("revision")) if isinstance(lm, Mapping) else (lm, None)
        config = AutoConfig.from_pretrained(embedded_model_folder() if str(name) == NAME else name, revision=revision)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    else:
        model = lm.model
    return sum(p.numel() for p in model.parameters())


def augmenter_of(lm: CausalLM, recipe: Recipe, cache: JSONCache, asked: str) -> DocumentAugmenter:
    """The augmenter that a recipe names; what was chosen, and why, is logged.

    Args:
        lm: The model.
        recipe: Settled for it.
        cache: Where what the model writes is kept.
        asked: What the user said, before it was settled.
    """
    from llamaindex_prag.augment.augmenter import Augmenter
    from llamaindex_prag.augment.rules.augmenter import RuleAugmenter

    questions = max(recipe.questions, 1)
    if recipe.augmentation != "rules":
        if recipe.questions:
            logger.info("%s: %s writes questions and rewrites itself", recipe.name, _told(lm, asked, "at least"))
        return Augmenter(lm, questions=questions, cache=cache)
    if asked == "auto":
        logger.warning(
            "%s: questions are made by rule and nothing is rewritten, because %s; the published recipe has the model "
            "write both, which augmentation='model' asks for (`dynprag parametrize --augmentation model`)",
            recipe.name,
            _told(lm, asked, "fewer than"),
        )
    else:
        logger.info("%s: questions are made by rule, as was asked for", recipe.name)
    return RuleAugmenter(questions=questions, seed=recipe.seed)


def refuse_unless_of_recipe(augmenter: DocumentAugmenter, recipe: Recipe) -> None:
    """Refuse an augmenter whose adapters would get the key of others.

    Raises:
        ConfigurationError: Telling how to have the recipe that fits.
    """
    by = getattr(augmenter, "by", "model")
    if recipe.questions and recipe.augmentation not in ("auto", by):
        raise ConfigurationError(
            f"the augmenter {augmenter!r} makes questions by {by}, and the recipe {recipe.name!r} keeps adapters under "
            f"the key of augmentation={recipe.augmentation!r}, so they would be taken for others. Make the model with "
            f"recipe=get_recipe({recipe.name!r}, augmentation={by!r})"
        )


def _told(lm: CausalLM, asked: str, relation: str) -> str:
    if asked != "auto":
        return f"{lm.name}, as was asked for,"
    return f"{lm.name} has {parameters_of(lm) / 1e6:.0f}M parameters, {relation} {CAPABLE / 1e6:,.0f}M"
