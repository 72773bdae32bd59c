"""The base model of a model in a server: generates there, and is loaded locally for what a server does not offer.

    name, context window, generation    from the server
    tokenizer                           loaded locally at first use, and compared with the server's
    weights                             loaded locally at first use, for training and measuring

Generation itself is in `served_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapter_model import TextEngine
    from llamaindex_prag.parametric_model import ParametricModel
    from llamaindex_prag.serving.in_server import ModelInServer
    from rag_backbone.loading.causal_lm import CausalLM

_SAMPLE = "The keeper's letter of 1871: 東京, naïve, 3.14 — and so on…"


class ServedLM:
    """A `LanguageModel` in a server.

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
