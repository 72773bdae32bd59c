"""Refuses ways of combining adapters that are unknown or do not go together, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from llamaindex_prag.adapters.active_adapters import Merge
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.recipe import Recipe

_MERGING = ("mean", "score-weighted")
"""Policies for contradictions that merge the documents."""


def check_strategy(recipe: Recipe, merge: Merge, ensemble: Ensemble | None, *, in_server: bool = False) -> None:
    """Check how the adapters of a recipe are to be combined.

    Raises:
        ConfigurationError: If `merge` or `ensemble` is unknown, both are given, an ensemble's model is in a server,
            which answers with one adapter, or `merge="shared_once"` and the recipe has no start.
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
        if in_server:
            raise ConfigurationError(
                f"ensemble={ensemble!r} mixes the next-token distributions of several adapters, but a server answers "
                "with one; use a model in this process, or merge the adapters (merge='mean')"
            )
    if merge == "shared_once" and not recipe.start:
        raise ConfigurationError(
            f"merge='shared_once' adds once the adapter that documents start from, but the recipe {recipe.name!r} has "
            "no start; train with recipe.changed(start=warm_up(lm, store, recipe, pairs).digest), or use another merge"
        )


def active_limit(max_active: int | None, merge: Merge, conflicts: str | None, max_adapters: int) -> int:
    """Return how many passages may act at once.

    Args:
        max_active: What was asked for; None for 1, or with `conflicts`, whose policies need several documents, for as
            many as a call may use.
        merge: How updates are combined; the part of `"shared_once"` takes the place of one adapter.
        conflicts: Policy for documents that contradict each other, or None.
        max_adapters: Number of adapters that a call may use.

    Raises:
        ConfigurationError: If `max_active` is out of range, or 1 with a policy that merges documents.
    """
    # The shared part is not needed if only one passage acts.
    room = max_adapters - 1 if merge == "shared_once" and max_adapters > 1 else max_adapters
    if max_active is None:
        return 1 if conflicts is None else room
    if not 1 <= max_active <= room:
        raise ConfigurationError(
            f"max_active is {max_active}; it must be from 1 to {room}, the number of adapters that a call of this "
            "model may use (max_adapters)"
        )
    if max_active == 1 and conflicts in _MERGING:
        raise ConfigurationError(
            f"conflicts={conflicts!r} merges several documents' adapters, but max_active is 1; leave max_active out, "
            "or choose conflicts='latest' or 'context'"
        )
    return max_active
