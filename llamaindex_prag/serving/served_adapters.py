"""The views of a served model that its parts use: the server, and the adapters of one store that it applies there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import LanguageModel, TextEngine
    from llamaindex_prag.adapters.active_adapters import ActiveAdapters
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.adapters.source import MergeableStore
    from llamaindex_prag.serving.llamacpp_client import LlamaCppClient
    from llamaindex_prag.serving.lora_server import LoraServer
    from llamaindex_prag.serving.model_server import ModelServer


class AdaptersInServer(Protocol):
    """A server with the adapters of one store."""

    @property
    def server(self) -> ModelServer:
        """The server's client."""

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

    def new_engine(self) -> TextEngine:
        """Return an engine that generates in this server."""

    def lost(self, selection: ActiveAdapters) -> None:
        """Record that the server no longer knows these adapters."""


class ServedAdapters(AdaptersInServer, Protocol):
    """A server in which a model name stands for adapters."""

    @property
    def server(self) -> LoraServer:
        """The server's client."""

    def name_of(self, selection: ActiveAdapters | None) -> AbstractContextManager[str]:
        """Return the model name of a request with these adapters, usable for as long as the context lasts."""


class ScaledAdapters(AdaptersInServer, Protocol):
    """A llama.cpp server, in which every request names its adapters, each with a scale."""

    @property
    def server(self) -> LlamaCppClient:
        """The server's client."""

    def acting(
        self, selection: ActiveAdapters | None, prompt: Sequence[int] = (), answer: Sequence[int] = ()
    ) -> AbstractContextManager[list[dict[str, Any]]]:
        """Return the `lora` field of a request with these adapters, usable for as long as the context lasts."""
