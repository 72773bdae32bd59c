"""Choose how questions are generated if the user has not: by the model or by rules.

    parameters >= CAPABLE      the model writes questions and rewrite, as PRAG publishes it
    parameters <  CAPABLE      rules generate the questions (`RuleAugmenter`), nothing is rewritten

The threshold follows the smallest model with which PRAG's authors publish results, Llama-3.2-1B (1.24 billion
parameters). A smaller model takes minutes to write, and less of what it writes is about the passage. The choice depends
on the model alone, not on a machine's speed or on single replies, so that a store's keys mean the same everywhere: a
recipe is settled once, and adapters of the two kinds never share a key. An explicit `augmentation=` is never
overridden.
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
    from llamaindex_prag.augment.kept import JSONCache
    from rag_backbone.loading.causal_lm import CausalLM

logger = logging.getLogger(__name__)

CAPABLE = 1_000_000_000
"""Number of parameters from which a model generates its own questions."""


class DocumentAugmenter(Protocol):
    """Generates the questions about passages: `Augmenter`, `EndpointAugmenter`, `RuleAugmenter`, or a custom class."""

    @property
    def by(self) -> Literal["model", "rules"]:
        """Kind of key under which adapters trained on these questions are stored."""

    def augment_all(
        self, documents: Sequence[tuple[str, str]], *, progress: bool = True, advance: Tick | None = None
    ) -> list[Augmentation]:
        """Augment (title, text) pairs; `advance` is called with each finished fraction of the work, 1 in total."""


def settled(
    recipe: Recipe,
    lm: CausalLM | str | Path | Mapping[str, Any] | None,
    kept: Callable[[], Iterable[AdapterKey]] = tuple,
) -> Recipe:
    """Return the recipe with `augmentation` settled; unchanged if the user chose it or no questions are requested.

    Args:
        recipe: The recipe.
        lm: The model, or what loads it. None: unknown.
        kept: Returns the keys of existing adapters; called if the model is unknown. If some were trained on questions
            by rule, and none on a model's questions, the model was a small one.
    """
    # A recipe with phrases already has questions by rule, so requesting more questions means the model's.
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
    """Return a model's number of parameters; if it is not loaded, from its config, without reading the weights."""
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
    """Return the augmenter that a recipe names, and log the choice and its reason.

    Args:
        lm: The model.
        recipe: The recipe, settled for the model.
        cache: Caches what the model writes.
        asked: The user's `augmentation`, before it was settled.
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
            "%s: rules generate the questions and nothing is rewritten, because %s; in the published recipe the model "
            "writes both. For that, set augmentation='model' (`dynprag parametrize --augmentation model`)",
            recipe.name,
            _told(lm, asked, "fewer than"),
        )
    else:
        logger.info("%s: rules generate the questions, as requested", recipe.name)
    return RuleAugmenter(questions=questions, seed=recipe.seed)


def refuse_unless_of_recipe(augmenter: DocumentAugmenter, recipe: Recipe) -> None:
    """Refuse an augmenter whose adapters would be stored under the key of another kind, or that would not be asked.

    Raises:
        ConfigurationError: If the kinds differ, or the recipe requests no questions from a model; the message says how
            to get the matching recipe.
    """
    by = getattr(augmenter, "by", "model")
    if by == "model" and not recipe.questions:
        raise ConfigurationError(
            f"the augmenter {augmenter!r} would never be asked, because the recipe {recipe.name!r} has questions=0: it "
            f"learns from questions by rule. Create the model with recipe=get_recipe({recipe.name!r}, questions=12)"
        )
    if recipe.questions and recipe.augmentation not in ("auto", by):
        raise ConfigurationError(
            f"the augmenter {augmenter!r} generates questions by {by}, but the recipe {recipe.name!r} stores adapters "
            f"under the key of augmentation={recipe.augmentation!r}, so they would be confused. Create the model "
            f"with recipe=get_recipe({recipe.name!r}, augmentation={by!r})"
        )


def _told(lm: CausalLM, asked: str, relation: str) -> str:
    if asked != "auto":
        return f"{lm.name}, as requested,"
    return f"{lm.name} has {parameters_of(lm) / 1e6:.0f}M parameters, {relation} {CAPABLE / 1e6:,.0f}M"
