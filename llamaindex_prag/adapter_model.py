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

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapter import AdapterKey
    from llamaindex_prag.adapter_keys import ReadableStore
    from llamaindex_prag.parametric import ParametricModel
    from llamaindex_prag.recipe import Recipe
    from llamaindex_prag.selection import Merge, Selection
    from llamaindex_prag.translator.translations import Translations
    from rag_backbone.requests import Generation, Request
    from rag_backbone.signals import TokenStep


class TextEngine(Protocol):
    """Generates text under a request's adapters: `Engine`, or `ServedEngine`."""

    def generate(self, request: Request) -> Generation:
        """Generate a whole text."""
        ...

    def stream(self, request: Request) -> AbstractContextManager[Iterable[TokenStep]]:
        """Generate step by step; leaving the context ends the generation."""
        ...


class LanguageModel(Protocol):
    """The base model of a set of adapters: a `CausalLM`, or a `ServedLM`."""

    @property
    def name(self) -> str:
        """Name for messages and records; in a server, the name that requests use."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the weights, tokenizer and config that adapters were trained on."""
        ...

    @property
    def context_window(self) -> int:
        """The most tokens that prompt and answer may have."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    @property
    def engine(self) -> TextEngine:
        """Generates with this model."""
        ...

    @property
    def loaded_with(self) -> Any:
        """What loads the same model again; None if it exists in memory only."""
        ...


class AdapterModel(Protocol):
    """A model, a store of its adapters, and the recipe that they are made by."""

    @property
    def lm(self) -> LanguageModel:
        """The base model."""
        ...

    @property
    def store(self) -> ReadableStore:
        """The adapters."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The recipe that the adapters are trained by."""
        ...

    @property
    def max_adapters(self) -> int:
        """The most documents that one call may use."""
        ...

    @property
    def translations(self) -> Translations | None:
        """Translated adapters beside the trained ones; None without a translator."""
        ...

    @property
    def translator_key(self) -> str | None:
        """What stands in the keys of translated adapters in the place of the recipe."""
        ...

    @property
    def local(self) -> ParametricModel:
        """The same model in this process, which trains adapters and measures what they do.

        Raises:
            ConfigurationError: If only a server's address is known.
        """
        ...

    @property
    def in_server(self) -> bool:
        """Whether another process computes the answers."""
        ...

    def location(self) -> dict[str, Any]:
        """Return the arguments of `ParametricLLM` that lead to the server; none for a model in this process."""
        ...

    def key(self, text: str) -> AdapterKey:
        """Return the key of a passage's trained adapter, whether or not it exists."""
        ...

    def knows(self, text: str) -> bool:
        """Return whether the passage has a trained adapter."""
        ...

    def find(self, text: str) -> AdapterKey | None:
        """Return the key of the passage's trained adapter, or else of its translated one, or None."""
        ...

    def find_hash(self, digest: str) -> AdapterKey | None:
        """Find an adapter by the passage's `text_hash`."""
        ...

    def select(
        self,
        keys: Sequence[AdapterKey],
        *,
        merge: Merge = "mean",
        scores: Sequence[float] | None = None,
        strength: float | Sequence[float] = 1.0,
    ) -> Selection | None:
        """Combine adapters for one call; None for no keys.

        Raises:
            AdapterError: If there are more than `max_adapters`.
        """
        ...

    def runnable(self, selection: Selection) -> Any:
        """Return what a text generator of `langgraph_dynrag` takes to write under these adapters."""
        ...

    def check_missing(self, missing: str, advice: str) -> None:
        """Refuse a policy for missing adapters that this model cannot follow.

        Args:
            missing: `"train"`, `"translate"`, or another one, which needs nothing of the model.
            advice: Ends the message: what the caller's user can write instead.

        Raises:
            ConfigurationError: If there are no weights to train with, or no translator.
        """
        ...

    def check_weighing(self) -> None:
        """Refuse to weigh reading against training (`inject="auto"`) where the model is in a server.

        Raises:
            ConfigurationError: If it is.
        """
        ...

    def check_chat_model(self, chat: object) -> None:
        """Refuse a LangChain chat model that does not write with these adapters.

        Raises:
            ConfigurationError: With the line that makes one that does.
        """
        ...
