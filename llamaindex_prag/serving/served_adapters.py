"""The view of a `ServedModel` that its parts use: the server, and the adapters that it loads there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import LanguageModel
    from llamaindex_prag.adapters.active_adapters import ActiveAdapters
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.adapters.source import MergeableStore
    from llamaindex_prag.serving.lora_server import LoraServer


class ServedAdapters(Protocol):
    """A server with the adapters of one store."""

    server: LoraServer
    store: MergeableStore
    recipe: Recipe
    max_adapters: int
    name: str
    """The base model's name in the server."""
    context_window: int
    """Maximum number of tokens of prompt and answer together."""

    @property
    def lm(self) -> LanguageModel:
        """The base model."""

    def name_of(self, selection: ActiveAdapters | None) -> AbstractContextManager[str]:
        """Return the model name of a request with these adapters, usable for as long as the context lasts."""

    def lost(self, selection: ActiveAdapters) -> None:
        """Record that the server no longer knows the name of these adapters."""
