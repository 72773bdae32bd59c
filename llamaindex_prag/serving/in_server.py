"""What the models of all servers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.serving.model_server import ModelServer
from llamaindex_prag.serving.served_lm import ServedLM
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.parametric_model import ParametricModel
    from llamaindex_prag.serving.served_engine import ServedEngine
    from rag_backbone.loading.causal_lm import CausalLM


class ModelInServer(AdapterModel):
    """A model in a server, with the adapters of one store.

    Args:
        store: Open store of the adapters.
        lm: The same model for local use, or None.
        recipe: Recipe of the adapters.
        max_adapters: Maximum number of documents per call.
    """

    lm: ServedLM
    store: MergeableStore
    server: ModelServer
    """The server's client."""
    name: str
    """The base model's name in the server."""
    context_window: int
    """Maximum number of tokens of prompt and answer together."""
    in_server = True
    _allowing_more = "max_adapters"
    """What allows more adapters per call, for messages."""

    def __init__(
        self,
        store: MergeableStore,
        *,
        lm: CausalLM | str | Path | Mapping[str, Any] | None,
        recipe: str | Recipe,
        max_adapters: int,
    ) -> None:
        if max_adapters < 1:
            raise ConfigurationError(f"max_adapters is {max_adapters}; at least 1 is needed")
        self.store, self.recipe = store, settled(get_recipe(recipe), lm, store.keys)
        self.max_adapters = max_adapters
        self.lm = ServedLM(self, lm)

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.server.base_url

    @property
    def trainable(self) -> bool:
        """Whether adapters can be trained, which requires `lm`."""
        return self.lm.named

    @property
    def local(self) -> ParametricModel:
        """The same model in this process, loaded at first use, for training and measuring.

        Raises:
            ConfigurationError: If `lm` was not given.
        """
        return self.lm.local

    def new_engine(self) -> ServedEngine:
        """Return an engine that generates in this server."""
        raise NotImplementedError

    def request_options(self, selection: ActiveAdapters) -> AbstractContextManager[dict[str, Any]]:
        """Return the options of a request with these adapters, which stay usable while the context lasts."""
        raise NotImplementedError

    def lost(self, selection: ActiveAdapters) -> None:
        """Record that the server no longer knows these adapters."""

    def runnable(self, selection: ActiveAdapters) -> ServerSelection:
        """Return the object that makes a generator use these adapters."""
        return ServerSelection(self, selection)

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        acts_from = self.recipe.acts_from
        selection = ActiveAdapters.of(keys, version=self.store.generation, acts_from=acts_from, **options)
        if len(selection) > self.max_adapters:
            raise AdapterError(
                f"{len(selection)} adapters were selected; a call may use {self.max_adapters}. Retrieve fewer "
                f"documents, or allow more ({self._allowing_more})."
            )
        return selection


@dataclass(frozen=True, slots=True)
class ServerSelection:
    """Active adapters of a call, with the model whose server has them."""

    model: ModelInServer
    selection: ActiveAdapters

    def request_options(self) -> AbstractContextManager[dict[str, Any]]:
        """Return the options of a request; see `ModelInServer.request_options`."""
        return self.model.request_options(self.selection)

    def lost(self) -> None:
        """Record that the server no longer knows the adapters."""
        self.model.lost(self.selection)

    def __repr__(self) -> str:
        return f"ServerSelection({self.selection!r})"
