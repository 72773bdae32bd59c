"""The base model of a `ServedModel`: generates in the server, and is loaded here for what a server cannot give.

    name, context window, generation    the server
    tokenizer                           loaded here at first use, and compared with the server's
    weights                             loaded here at first use, to train and to measure

How text is generated is `served_engine`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.parametric_model import ParametricModel
    from llamaindex_prag.serving.served_adapters import ServedAdapters
    from llamaindex_prag.serving.served_engine import ServedEngine
    from rag_backbone.loading.causal_lm import CausalLM

_SAMPLE = "The keeper's letter of 1871: 東京, naïve, 3.14 — and so on…"


class ServedLM:
    """A `LanguageModel` in a server.

    Args:
        served: The model with its server and store.
        lm: The same model here: loaded, or what loads it. None: only the server is known.

    Raises:
        ConfigurationError: If a loaded model is not the one that the store's adapters were trained on.
    """

    def __init__(self, served: ServedAdapters, lm: CausalLM | str | Path | Mapping[str, Any] | None) -> None:
        self._served = served
        self._arguments = _arguments(lm)
        self._in_memory = None if isinstance(lm, str | Path | Mapping) else lm
        if self._in_memory is not None and self._in_memory.fingerprint != self.fingerprint:
            raise ConfigurationError(
                f"the store holds adapters of the model {self.fingerprint[:12]}…, and {self._in_memory.name} is "
                f"{self._in_memory.fingerprint[:12]}…. Use the model that they were trained on, or another store."
            )
        self.named = lm is not None
        """Whether the model can be loaded here."""
        self.loaded_with: Any = str(lm) if isinstance(lm, str | Path) else self._arguments
        """What loads the model here; None: it was not named, or exists in memory only."""
        if self._in_memory is not None:
            self.loaded_with = self._in_memory.loaded_with

    @property
    def name(self) -> str:
        """The model's name in the server."""
        return self._served.name

    @property
    def fingerprint(self) -> str:
        """The store's fingerprint: the model that its adapters were trained on."""
        return self._served.store.model

    @property
    def context_window(self) -> int:
        """The server's limit."""
        return self._served.context_window

    @cached_property
    def engine(self) -> ServedEngine:
        """Generates in the server."""
        from llamaindex_prag.serving.served_engine import ServedEngine

        return ServedEngine(self._served)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            ConfigurationError: If the model was not named, or the server's is another one.
        """
        tokenizer = self._in_memory.tokenizer if self._in_memory is not None else self._loaded_tokenizer()
        server = self._served.server
        told = server.tokenised(_SAMPLE)
        own = list(tokenizer(_SAMPLE, add_special_tokens=False).input_ids)
        if told is not None and told != own:
            raise ConfigurationError(
                f"{server.name} has another tokenizer than lm: {_SAMPLE!r} is {told[:6]}... there and "
                f"{own[:6]}... here. Name the model that it serves."
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
                f"this needs {what}, and only the server's address is known: ServedModel(..., lm=...) with the folder "
                "or Hub id of the model that it serves"
            )
        return self._arguments

    def __repr__(self) -> str:
        return f"ServedLM({self.name!r})"


def _arguments(lm: object) -> dict[str, Any] | None:
    """The arguments of `CausalLM.from_pretrained`; None for a model in memory, or none."""
    if isinstance(lm, Mapping):
        return dict(lm)
    return {"name": lm} if isinstance(lm, str | Path) else None
