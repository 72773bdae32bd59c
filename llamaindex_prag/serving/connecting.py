"""Connects to whichever server answers at an address: vLLM, or llama.cpp's."""

from __future__ import annotations

from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
from llamaindex_prag.serving.model_server import ModelServer
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.errors import ConfigurationError


def connected(
    base_url: str, store: MergeableStore, *, model: str, recipe: str | Recipe, max_adapters: int
) -> ServedModel | LlamaCppModel:
    """Return the model of a server, with the adapters of one store.

    Args:
        base_url: Address of the server, including `/v1`.
        store: Open store of the adapters.
        model: Name of the model in the server.
        recipe: Recipe of the adapters.
        max_adapters: Maximum number of documents per call.

    Raises:
        ConfigurationError: If the server does not have the model, or the adapters act in a way that it cannot follow.
        ServerUnavailableError: If the server cannot be reached.
        ServerError: If it does not list its models.
    """
    server = ModelServer(base_url)
    if not server.is_llamacpp(server.models()):
        return ServedModel(base_url, store, model=model, recipe=recipe, max_adapters=max_adapters)
    served = LlamaCppModel(base_url, store, recipe=recipe, max_adapters=max_adapters)
    if served.name != model:  # llama.cpp answers under any name
        raise ConfigurationError(f"{server.name} has no model {model!r}; it has {served.name}")
    return served
