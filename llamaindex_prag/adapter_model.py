"""Protocol of a model that answers from stored adapters, wherever it runs.

    ParametricModel    the model is in this process
    ServedModel        the model is in a vLLM server; for training and measuring, its weights are loaded here (`local`)
    LlamaCppModel      likewise in a llama.cpp server

Prompts, placement and both frameworks use these members only. A model itself refuses what it cannot do. Knows no
framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.adapters.start import start_key
from llamaindex_prag.adapters.strategies import check_strategy
from llamaindex_prag.errors import NO_TRANSLATOR
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
    from llamaindex_prag.adapters.bank import AdapterBank
    from llamaindex_prag.adapters.layout import Layout
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.adapters.source import ReadableStore
    from llamaindex_prag.translator.translations import Translations
    from rag_backbone.engine.adapters import Ensemble
    from rag_backbone.engine.ensemble import AdapterEnsemble
    from rag_backbone.engine.requests import Generation, Request
    from rag_backbone.engine.signals import TokenStep
    from rag_backbone.loading.causal_lm import CausalLM


class TextEngine(Protocol):
    """Generates text under a request's adapters: `Engine`, or `ServedEngine`."""

    def generate(self, request: Request) -> Generation:
        """Generate the whole text."""

    def stream(self, request: Request) -> AbstractContextManager[Iterable[TokenStep]]:
        """Generate step by step; leaving the context ends the generation."""


class LanguageModel(Protocol):
    """The base model of a set of adapters: a `CausalLM`, or a `ServedLM`."""

    @property
    def name(self) -> str:
        """Name for messages and records; for a served model, the name that requests use."""

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, tokenizer and config that adapters were trained on."""

    @property
    def context_window(self) -> int:
        """Maximum number of tokens of prompt and answer together."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def engine(self) -> TextEngine:
        """The engine that generates with this model."""

    @property
    def loaded_with(self) -> Any:
        """Name or arguments that load the same model again; None if the model exists in memory only."""


class AdapterModel(Protocol):
    """A model, a store of its adapters, and the recipe that trains them.

    Derive from it: finding adapters and refusing unsupported requests work the same for all models.
    """

    lm: LanguageModel
    """The base model."""
    store: ReadableStore
    """The adapters."""
    recipe: Recipe
    """The recipe, with `augmentation` settled for this model, so that a key tells how the questions were generated."""
    max_adapters: int
    """Maximum number of documents per call."""
    translations: Translations | None = None
    """Translated adapters next to the trained ones; None without a translator."""
    in_server: bool = False
    """Whether another process computes the answers."""
    _start: tuple[int, AdapterKey] | None = None
    """The store's change counter when the recipe's start was last looked up, and its key."""

    @property
    def local(self) -> LocalModel:
        """The same model in this process, for training adapters and measuring their effect.

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
        """Combine adapters for one call, or return None if there are no keys.

        Raises:
            AdapterError: If there are more than `max_adapters`, or with `merge="shared_once"`, some are translated.
            ConfigurationError: If the merge is unknown or not possible (`check_strategy`).
        """
        if not keys:
            return None
        self.check_strategy(merge)
        shared = self._shared_part(keys) if merge == "shared_once" and len(set(keys)) > 1 else None
        return self._selected(keys, merge=merge, scores=scores, strength=strength, shared=shared)

    def _shared_part(self, keys: Sequence[AdapterKey]) -> AdapterKey:
        """Return the key of the start that several adapters share, if a call has room for it."""
        if translated := sum(key.recipe != self.recipe.key for key in set(keys)):
            raise AdapterError(
                f"merge='shared_once' adds once what trained adapters start from, but {translated} of {len(set(keys))} "
                "are translated or of another recipe; use another merge"
            )
        if (several := len(set(keys))) >= self.max_adapters:
            raise AdapterError(
                f"{several} adapters were selected, and merge='shared_once' adds their shared part; a call may use "
                f"{self.max_adapters} in all (max_adapters)"
            )
        start = self._start_key()
        assert start is not None  # by `check_strategy`
        return start

    def _start_key(self) -> AdapterKey | None:
        """Return the key of the recipe's start; the store is searched again after an adapter is removed."""
        generation = self.store.generation
        if self._start is None or self._start[0] != generation:
            found = start_key(self.store, self.recipe)
            if found is None:
                return None
            self._start = (generation, found)
        return self._start[1]

    def check_strategy(self, merge: Merge = "mean", ensemble: Ensemble | None = None) -> None:
        """Refuse a way of combining several adapters that this model cannot follow.

        Raises:
            ConfigurationError: If `merge` or `ensemble` is unknown, both are given, an ensemble's model is in a server,
                which answers with one adapter, or `merge="shared_once"` and the recipe has no start.
            AdapterError: If `merge="shared_once"` and the store does not hold the recipe's start.
        """
        check_strategy(self.recipe, merge, ensemble, in_server=self.in_server)
        if merge == "shared_once":
            self._start_key()

    def ensemble(
        self,
        keys: Sequence[AdapterKey],
        *,
        kind: Ensemble = "mixture",
        scores: Sequence[float] | None = None,
        strength: float | Sequence[float] = 1.0,
    ) -> AdapterEnsemble | None:
        """Let each adapter answer alone and mix their next-token distributions; None if there are no keys.

        Args:
            keys: The adapters' keys.
            kind: `"mixture"`, the weighted mean of the distributions, or `"product"`, their weighted geometric mean.
            scores: Retrieval scores, whose softmax weighs the adapters; None for equal weights.
            strength: A factor on each adapter's update, or one per adapter.

        Raises:
            AdapterError: If there are more than `max_adapters`, or the scores do not fit.
            ConfigurationError: If the kind is unknown, or the model is in a server, which answers with one adapter.
        """
        self.check_strategy(ensemble=kind)
        if not keys:
            return None
        from llamaindex_prag.adapters.ensembles import ensemble_of  # needs torch, which a server's client does not

        selection = self._selected(keys, merge="sum", strength=strength)
        return ensemble_of(selection, keys, kind=kind, scores=scores)

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        """Combine at least one adapter; the options are those of `ActiveAdapters.of`."""

    def runnable(self, selection: ActiveAdapters) -> Any:
        """Return what a text generator of `langgraph_dynrag` needs to generate under these adapters."""
        return selection

    def check_chat_model(self, chat: object) -> None:
        """Refuse a LangChain chat model that does not generate with these adapters.

        Raises:
            ConfigurationError: If it does not; the message has the line that creates one that does.
        """

    @property
    def trainable(self) -> bool:
        """Whether adapters can be trained."""
        return True

    @property
    def translator_key(self) -> str | None:
        """The translator's fingerprint, which translated adapters have in their keys instead of the recipe."""
        return self.translations.translator.fingerprint if self.translations else None

    def location(self) -> dict[str, Any]:
        """Return the `ParametricLLM` arguments that locate the server; empty for a model in this process."""
        return {}

    def key(self, text: str) -> AdapterKey:
        """Return the key of a passage's trained adapter, whether or not it exists."""
        return AdapterKey(self.store.model, self.recipe.key, text_hash(text))

    def knows(self, text: str) -> bool:
        """Return whether the passage has a trained adapter."""
        return self.key(text) in self.store

    def find(self, text: str) -> AdapterKey | None:
        """Return the key of the passage's trained adapter, else that of its translated one, else None."""
        return self.find_hash(text_hash(text))

    def find_hash(self, digest: str) -> AdapterKey | None:
        """Find an adapter by the passage's `text_hash`; like `find`."""
        trained = AdapterKey(self.store.model, self.recipe.key, digest)
        if trained in self.store:
            return trained
        if self.translations is not None and self.translations.knows(digest):
            return AdapterKey(self.store.model, self.translations.translator.fingerprint, digest)
        return None

    def check_missing(self, missing: str, advice: str) -> None:
        """Refuse a policy for missing adapters that this model cannot follow.

        Args:
            missing: `"train"`, `"translate"`, or another policy, which needs nothing from the model.
            advice: End of the message: what the user can write instead.

        Raises:
            ConfigurationError: If there are no weights to train with, or no translator.
            AdapterError: If adapters would be trained from a start that the store does not hold.
        """
        if missing == "translate" and self.translations is None:
            raise ConfigurationError(f"missing='translate' needs a translator{advice}. {NO_TRANSLATOR}")
        if missing == "train":
            if not self.trainable:
                raise ConfigurationError(f"missing='train' needs the model's weights{advice}")
            self._start_key()

    def check_weighing(self) -> None:
        """Refuse to weigh reading against training (`injection="auto"`) if the model is in a server.

        Raises:
            ConfigurationError: If the model is in a server.
        """
        if self.in_server:
            raise ConfigurationError(
                "injection='auto' weighs the costs of reading and training on this machine, but the model is in a "
                "server; choose injection='parametric' or 'combined'"
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
