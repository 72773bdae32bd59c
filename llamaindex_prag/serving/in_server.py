"""What the models of all servers have in common.

Generation itself is in `served_engine` and `llamacpp_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.serving.model_server import ModelServer
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapter_model import TextEngine
    from llamaindex_prag.parametric_model import ParametricModel
    from rag_backbone.loading.causal_lm import CausalLM

_SAMPLE = "The keeper's letter of 1871: 東京, naïve, 3.14 — and so on…"


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

    def new_engine(self) -> TextEngine:
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


class ServedLM:
    """A `LanguageModel` in a server: generates there, and is loaded locally for what a server does not offer.

        name, context window, generation    from the server
        tokenizer                           loaded locally at first use, and compared with the server's
        weights                             loaded locally at first use, for training and measuring

    Args:
        served: The model with its server and store.
        lm: The same model for local use: a loaded model, or its name, folder or loading arguments. None if only the
            server is known.

    Raises:
        ConfigurationError: If a loaded model is not the one that the store's adapters were trained on.
    """

    def __init__(self, served: ModelInServer, lm: CausalLM | str | Path | Mapping[str, Any] | None) -> None:
        self._served = served
        self._arguments = _arguments(lm)
        self._in_memory = None if isinstance(lm, str | Path | Mapping) else lm
        if self._in_memory is not None and self._in_memory.fingerprint != self.fingerprint:
            raise ConfigurationError(
                f"the store holds adapters of the model {self.fingerprint[:12]}…, but {self._in_memory.name} is "
                f"{self._in_memory.fingerprint[:12]}…. Use the model that they were trained on, or another store."
            )
        self.named = lm is not None
        """Whether `lm` was given, so that the model can be used locally."""
        self.loaded_with: Any = str(lm) if isinstance(lm, str | Path) else self._arguments
        """Name or arguments that load the model locally; None if it was not given, or exists only in memory."""
        if self._in_memory is not None:
            self.loaded_with = self._in_memory.loaded_with

    @property
    def name(self) -> str:
        """The model's name in the server."""
        return self._served.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that the store's adapters were trained on."""
        return self._served.store.model

    @property
    def context_window(self) -> int:
        """Context window of the model in the server."""
        return self._served.context_window

    @cached_property
    def engine(self) -> TextEngine:
        """Engine that generates in the server."""
        return self._served.new_engine()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            ConfigurationError: If `lm` was not given, or the server has a different tokenizer.
        """
        tokenizer = self._in_memory.tokenizer if self._in_memory is not None else self._loaded_tokenizer()
        server = self._served.server
        told = server.tokenised(_SAMPLE)
        own = list(tokenizer(_SAMPLE, add_special_tokens=False).input_ids)
        if told is not None and told != own:
            raise ConfigurationError(
                f"{server.name} has another tokenizer than lm: {_SAMPLE!r} is {told[:6]}... there and "
                f"{own[:6]}... here. Pass the model that the server runs as lm."
            )
        return tokenizer

    @cached_property
    def local(self) -> ParametricModel:
        """The model with its weights in this process; see `AdapterModel.local`."""
        from llamaindex_prag.parametric_model import ParametricModel
        from rag_backbone.loading.causal_lm import CausalLM

        served = self._served
        lm = self._in_memory or CausalLM.from_pretrained(**self._named("the model's weights"))
        return ParametricModel.of(lm, served.store, recipe=served.recipe, max_adapters=served.max_adapters)

    def _loaded_tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        from rag_backbone.loading.embedded import NAME, embedded_model_folder

        arguments = self._named("a tokenizer")
        name = arguments["name"]
        source = embedded_model_folder() if str(name) == NAME else name
        return AutoTokenizer.from_pretrained(source, revision=arguments.get("revision"))

    def _named(self, what: str) -> dict[str, Any]:
        if self._arguments is None:
            raise ConfigurationError(
                f"this needs {what}, and only the server's address is known: write {type(self._served).__name__}(..., "
                "lm=...) with the folder or Hub id of the model that the server runs"
            )
        return self._arguments

    def __repr__(self) -> str:
        return f"ServedLM({self.name!r})"


def _arguments(lm: object) -> dict[str, Any] | None:
    """Return the arguments of `CausalLM.from_pretrained`; None for a model in memory, or for no model."""
    if isinstance(lm, Mapping):
        return dict(lm)
    return {"name": lm} if isinstance(lm, str | Path) else None
