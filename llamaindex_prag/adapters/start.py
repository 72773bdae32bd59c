"""Finds the adapter that a recipe's documents are trained from (`Recipe.start`), such as a warm-up's.

Training starts from its values, and `merge="shared_once"` takes it out of each adapter and adds it once. Decoupling
Knowledge and Task Subspaces (arXiv 2604.26768) and GenKnowSub (arXiv 2505.10939) separate a part for all documents
during training. Does not need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.adapter import AdapterKey
    from llamaindex_prag.adapters.recipe import Recipe


def start_key(store: object, recipe: Recipe) -> AdapterKey | None:
    """Return the key of the adapter that a recipe's documents start from; None if the recipe has no start.

    Raises:
        ConfigurationError: If the store cannot list adapters.
        AdapterError: If the store does not hold the adapter.
    """
    if not recipe.start:
        return None
    listed = getattr(store, "keys", None)
    if listed is None:
        raise ConfigurationError(
            f"the recipe {recipe.name!r} has a start, which needs a store that lists its adapters, such as LMDBStore, "
            f"but {type(store).__name__} does not"
        )
    found: AdapterKey | None = next((key for key in listed() if key.digest == recipe.start), None)
    if found is None:
        raise AdapterError(
            f"the documents of the recipe {recipe.name!r} start from the adapter {recipe.start[:12]}…, but the store "
            "does not hold it; train it with warm_up, or use a recipe without it (recipe.changed(start=''))"
        )
    return found
