"""The protocol of a model that answers from stored adapters, wherever it runs.

    ParametricModel    the model is in this process
    ServedModel        the model is in a vLLM server; training and measuring load its weights here (`local`)

Prompts, placement and both frameworks ask for these members only. What a model cannot do it refuses itself. Knows no
framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
    from llamaindex_prag.adapters.bank import AdapterBank
    from llamaindex_prag.adapters.layout import Layout
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.adapters.source import ReadableStore
    from llamaindex_prag.translator.translations import Translations
    from rag_backbone.engine.requests import Generation, Request
    from rag_backbone.engine.signals import TokenStep
    from rag_backbone.loading.causal_lm import CausalLM


class TextEngine(Protocol):
    """Generates text under a request's adapters: `Engine`, or `ServedEngine`."""

    def generate(self, request: Request) -> Generation:
        """Generate a whole text."""

    def stream(self, request: Request) -> AbstractContextManager[Iterable[TokenStep]]:
        """Generate step by step; leaving the context ends the generation."""


class LanguageModel(Protocol):
    """The base model of a set of adapters: a `CausalLM`, or a `ServedLM`."""

    @property
    def name(self) -> str:
        """Name for messages and records; in a server, the name that requests use."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights, tokenizer and config that adapters were trained on."""

    @property
    def context_window(self) -> int:
        """The most tokens that prompt and answer may have."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def engine(self) -> TextEngine:
        """Generates with this model."""

    @property
    def loaded_with(self) -> Any:
        """What loads the same model again; None if it exists in memory only."""


class AdapterModel(Protocol):
    """A model, a store of its adapters, and the recipe that they are made by.

    Derive from it: finding adapters, and refusing what cannot be done, are the same for all.
    """

    lm: LanguageModel
    """The base model."""
    store: ReadableStore
    """The adapters."""
    recipe: Recipe
    """With its `augmentation` decided for this model, so that a key says whose questions an adapter was made of."""
    max_adapters: int
    """The most documents that one call may use."""
    translations: Translations | None = None
    """Translated adapters beside the trained ones; None without a translator."""
    in_server: bool = False
    """Whether another process computes the answers."""

    @property
    def local(self) -> LocalModel:
        """The same model in this process, which trains adapters and measures what they do.

        Raises:
            ConfigurationError: If only a server's address is known.
        """

    def select(
        self,
        keys: Sequence[AdapterKey],
        *,
        merge: Merge = "mean",
        scores: Sequence[float] | None = None,
        strength: float | Sequence[float] = 1.0,
    ) -> ActiveAdapters | None:
        """Combine adapters for one call; None for no keys.

        Raises:
            AdapterError: If there are more than `max_adapters`.
        """
        return self._selected(keys, merge=merge, scores=scores, strength=strength) if keys else None

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        """Combine adapters, at least one; options are those of `ActiveAdapters.of`."""

    def runnable(self, selection: ActiveAdapters) -> Any:
        """Return what a text generator of `langgraph_dynrag` takes to write under these adapters."""
        return selection

    def check_chat_model(self, chat: object) -> None:
        """Refuse a LangChain chat model that does not write with these adapters.

        Raises:
            ConfigurationError: With the line that makes one that does.
        """

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
        return AdapterKey(self.store.model, self.recipe.key, text_hash(text))

    def knows(self, text: str) -> bool:
        """Return whether the passage has a trained adapter."""
        return self.key(text) in self.store

    def find(self, text: str) -> AdapterKey | None:
        """Return the key of the passage's trained adapter, or else of its translated one, or None."""
        return self.find_hash(text_hash(text))

    def find_hash(self, digest: str) -> AdapterKey | None:
        """Find an adapter by the passage's `text_hash`."""
        trained = AdapterKey(self.store.model, self.recipe.key, digest)
        if trained in self.store:
            return trained
        if self.translations is not None and self.translations.knows(digest):
            return AdapterKey(self.store.model, self.translations.translator.fingerprint, digest)
        return None

    def check_missing(self, missing: str, advice: str) -> None:
        """Refuse a policy for missing adapters that this model cannot follow.

        Args:
            missing: `"train"`, `"translate"`, or another one, which needs nothing of the model.
            advice: Ends the message: what the user can write instead.

        Raises:
            ConfigurationError: If there are no weights to train with, or no translator.
        """
        if missing == "translate" and self.translations is None:
            raise ConfigurationError(f"missing='translate' needs a translator{advice}")
        if missing == "train" and not self.trainable:
            raise ConfigurationError(f"missing='train' needs the model's weights{advice}")

    def check_weighing(self) -> None:
        """Refuse to weigh reading against training (`injection="auto"`) where the model is in a server.

        Raises:
            ConfigurationError: If it is.
        """
        if self.in_server:
            raise ConfigurationError(
                "injection='auto' weighs what reading and training cost on this machine, and the model is in a server; "
                "choose injection='parametric' or 'combined'"
            )


class LocalModel(AdapterModel, Protocol):
    """A model whose weights are in this process, so that it trains adapters and measures what they do."""

    lm: CausalLM
    layout: Layout
    """The form of its adapters."""
    bank: AdapterBank
    """Puts selections of adapters into the model's layers."""
    augmentation_asked: str
    """The recipe's `augmentation` as the user gave it."""
