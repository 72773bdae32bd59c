"""Finding the adapters of texts: trained ones by a recipe, and translated ones by a translator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from llamaindex_prag.adapter import AdapterKey, text_hash
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.recipe import Recipe
    from llamaindex_prag.translator.translations import Translations


class ReadableStore(Protocol):
    """What answering needs of a store."""

    @property
    def model(self) -> str:
        """The fingerprint of the model that the store was made for."""
        ...

    @property
    def generation(self) -> int:
        """Grows whenever an adapter is removed or replaced."""
        ...

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write an adapter's values and return its scale."""
        ...

    def __contains__(self, key: AdapterKey) -> bool: ...


class AdapterKeys:
    """The part of an `AdapterModel` that local and served models share.

    Args:
        store: The adapters of one model.
        recipe: The settled recipe of the trained ones.
        translations: The translated ones, if there is a translator.
    """

    def __init__(self, store: ReadableStore, recipe: Recipe, translations: Translations | None = None) -> None:
        self.store = store
        self.recipe = recipe
        """With its `augmentation` decided for this model, so that a key says whose questions an adapter was made of."""
        self.translations = translations

    in_server = False
    """Whether another process computes the answers."""

    @property
    def trainable(self) -> bool:
        """Whether adapters can be trained."""
        return True

    @property
    def translator_key(self) -> str | None:
        """The translator's fingerprint, which stands in its adapters' keys where trained ones have the recipe."""
        return self.translations.translator.fingerprint if self.translations else None

    def location(self) -> dict[str, Any]:
        """Return the arguments of `ParametricLLM` that lead to the server; none for a model in this process."""
        return {}

    def key(self, text: str) -> AdapterKey:
        """Return the key of a passage's trained adapter, whether or not it exists."""
        return self._trained(text_hash(text))

    def knows(self, text: str) -> bool:
        """Return whether the passage has a trained adapter."""
        return self.key(text) in self.store

    def find(self, text: str) -> AdapterKey | None:
        """Return the key of the passage's trained adapter, or else of its translated one, or None."""
        return self.find_hash(text_hash(text))

    def find_hash(self, digest: str) -> AdapterKey | None:
        """Find an adapter by the passage's `text_hash`."""
        trained = self._trained(digest)
        if trained in self.store:
            return trained
        if self.translations is not None and self.translations.knows(digest):
            return AdapterKey(self.store.model, self.translations.translator.fingerprint, digest)
        return None

    def check_missing(self, missing: str, advice: str) -> None:
        """Refuse a policy for missing adapters that this model cannot follow; see `AdapterModel`."""
        if missing == "translate" and self.translations is None:
            raise ConfigurationError(f"missing='translate' needs a translator{advice}")
        if missing == "train" and not self.trainable:
            raise ConfigurationError(f"missing='train' needs the model's weights{advice}")

    def check_weighing(self) -> None:
        """Refuse `inject="auto"` where the model is in a server; see `AdapterModel`."""
        if self.in_server:
            raise ConfigurationError(
                "inject='auto' weighs what reading and training cost on this machine, and the model is in a server; "
                "choose inject='parametric' or 'combined'"
            )

    def _trained(self, digest: str) -> AdapterKey:
        return AdapterKey(self.store.model, self.recipe.key, digest)
