"""Refuses ways of combining adapters that are unknown or do not go together, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from llamaindex_prag.adapters.active_adapters import Merge
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.recipe import Recipe


def check_strategy(recipe: Recipe, merge: Merge, ensemble: Ensemble | None) -> None:
    """Check how the adapters of a recipe are to be combined.

    Raises:
        ConfigurationError: If `merge` or `ensemble` is unknown, both are given, or `merge="shared_once"` and the recipe
            has no start.
    """
    if merge not in get_args(Merge):
        raise ConfigurationError(f"merge is {merge!r}; known: {', '.join(get_args(Merge))}")
    if ensemble is not None:
        if ensemble not in get_args(Ensemble):
            raise ConfigurationError(f"ensemble is {ensemble!r}; known: {', '.join(get_args(Ensemble))}")
        if merge != "mean":
            raise ConfigurationError(
                f"ensemble={ensemble!r} mixes next-token distributions, so that no updates are merged, but merge is "
                f"{merge!r}; leave out one of the two"
            )
    if merge == "shared_once" and not recipe.start:
        raise ConfigurationError(
            f"merge='shared_once' adds once the adapter that documents start from, but the recipe {recipe.name!r} has "
            "no start; train with recipe.changed(start=warm_up(lm, store, recipe, pairs).digest), or use another merge"
        )
