"""A model in a llama.cpp server that answers from stored adapters, each request with its own and a scale for each.

    update of a layer:  sum_i w_i s_i B_i A_i,   s_i in the adapter's file, w_i in the request

So whatever only weighs updates works: `mean`, `sum`, `score` and `shared_once`. `orthogonal` changes the updates
themselves and is refused. A server elsewhere has the adapters that it was started with; a `LlamaCppServer` in this
process loads others when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.serving.in_server import ModelInServer, ServerSelection
from llamaindex_prag.serving.llamacpp_client import LlamaCppClient
from llamaindex_prag.serving.llamacpp_engine import LlamaCppEngine
from llamaindex_prag.serving.llamacpp_files import (
    check_same_model,
    exported,
    file_name,
    invocation,
    note_quantisation,
)
from llamaindex_prag.serving.llamacpp_loaded import LoadedElsewhere, LoadedHere
from llamaindex_prag.store.gguf_file import GGUFModel
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.cache_folder import cache_root
from rag_backbone.loading.llamacpp_server import LlamaCppServer

if TYPE_CHECKING:
    from rag_backbone.engine.adapters import Ensemble
    from rag_backbone.loading.causal_lm import CausalLM

NO_ADAPTERS: dict[str, Any] = {"lora": [{"id": 0, "scale": 0.0}]}
"""Fields of a request that uses the base model alone. Without them, llama.cpp may reuse a cached prompt that was read
under another request's adapters."""

_GRAPH = "a graph that uses a llama.cpp server"


class LlamaCppModel(ModelInServer):
    """The model of a llama.cpp server, with the adapters of one store.

    Args:
        server: Address of the server, including `/v1`, or a `LlamaCppServer`.
        store: Open store of the adapters.
        lm: The same model for its tokenizer, and for training and measuring: a name or folder, loaded when needed, or a
            `CausalLM`. None if neither is needed, as in a graph with `missing="context"`.
        recipe: Recipe of the adapters. If it leaves the question source open (`prag`), the size of `lm` decides, or
            without `lm`, the adapters now in the store (`augment.choice.settled`).
        max_adapters: Maximum number of documents per call.
        folder: Folder for the files of adapters that a `LlamaCppServer` loads; None for one in the user's cache.
        keep: Number of adapters that a `LlamaCppServer` keeps loaded.
        api_key: None to use the environment variable `OPENAI_API_KEY`, if set.
        timeout: Timeout of a request in seconds.

    Raises:
        ConfigurationError: If an option is out of range, or the server runs another model than `lm`.
        ServerUnavailableError: If the server cannot be reached.
        ServerError: If it is not a llama.cpp server.

    Example:
        >>> served = LlamaCppModel(LlamaCppServer("model.gguf"), LMDBStore("adapters", model=None))  # doctest: +SKIP
        >>> create_dynamic_rag(
        ...     ChatOpenAI(base_url=served.base_url, model=served.name, extra_body=served.no_adapters),
        ...     retriever, injection="parametric", adapters=served, missing="context")  # doctest: +SKIP
    """

    server: LlamaCppClient

    def __init__(
        self,
        server: str | LlamaCppServer,
        store: MergeableStore,
        *,
        lm: CausalLM | str | Path | Mapping[str, Any] | None = None,
        recipe: str | Recipe = "distill",
        max_adapters: int = 8,
        folder: str | Path | None = None,
        keep: int = 64,
        api_key: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        super().__init__(store, lm=lm, recipe=recipe, max_adapters=max_adapters)
        here = server if isinstance(server, LlamaCppServer) else None
        self.server = LlamaCppClient(here.base_url if here else str(server), api_key=api_key, timeout=timeout)
        facts = self.server.facts()
        self.name, self.context_window = facts.model, facts.context_window
        self.quantisation = facts.quantisation
        """The type of most of the served model's weights, such as `"Q4_K_M"`; empty if the server does not say."""
        self._asked = {"backend": "llama.cpp", "folder": folder, "keep": keep, "timeout": timeout}
        self._folder = Path(folder) if folder is not None else cache_root() / "served" / f"gguf-{store.model[:16]}"
        self._base = here.file if here else Path(facts.file)
        self._names: dict[str, AdapterKey] = {}
        self._loaded: LoadedHere | LoadedElsewhere = LoadedElsewhere(self.server)
        if here is not None:
            self._loaded = LoadedHere(here, self._write, keep=keep)
        if lm is not None and not isinstance(lm, str | Path | Mapping) and self._base.is_file():
            check_same_model(self._gguf, lm)
        note_quantisation(self.quantisation, self.server.name)

    @property
    def no_adapters(self) -> dict[str, Any]:
        """What `ChatOpenAI(extra_body=...)` needs, so that requests without adapters use the base model alone."""
        return dict(NO_ADAPTERS)

    def location(self) -> dict[str, Any]:
        """Return the arguments of `ParametricLLM` that lead to this model, except secrets."""
        return {"base_url": self.base_url, "server": dict(self._asked)}

    def check_chat_model(self, chat: object) -> None:
        """Check that a chat model uses this server, and no adapters unless a request names them.

        Raises:
            ConfigurationError: If it does not; the message contains the line to write. Also if the adapters act from
                the answer on, which a graph cannot use (see `runnable`).
        """
        self.recipe.check_plain(_GRAPH)
        line = f"ChatOpenAI(base_url={self.base_url!r}, model={self.name!r}, extra_body={NO_ADAPTERS}, ...)"
        client: Any = getattr(chat, "root_client", None)
        used = type(chat).__name__ if client is None else str(client.base_url).rstrip("/")
        if used != self.base_url:
            raise ConfigurationError(
                f"the adapters are in {self.server.name}, but the chat model uses {used}. Use {line}"
            )
        given = (getattr(chat, "extra_body", None) or {}).get("lora")
        if not given or any(entry.get("scale") for entry in given):
            raise ConfigurationError(
                f"the chat model sends lora={given!r}, so a request without adapters may be answered from a cached "
                f"prompt that was read with some. Use {line}"
            )

    def check_strategy(self, merge: Merge = "mean", ensemble: Ensemble | None = None) -> None:
        """Refuse a way of combining adapters that a scale for each cannot express."""
        if merge == "orthogonal":
            raise ConfigurationError(
                "merge='orthogonal' changes the adapters' values, but a request to llama.cpp can only scale them; use "
                "'mean', 'sum', 'score' or 'shared_once'"
            )
        super().check_strategy(merge, ensemble)

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        selection = super()._selected(keys, **options)
        if self.recipe.acts_from == "answer" and len(selection) > 1:
            raise AdapterError(
                f"{len(selection)} adapters were selected, but llama.cpp applies one activated adapter per request, "
                f"and those of the recipe {self.recipe.name!r} are activated at the answer (acts_from='answer'); let "
                "one document act (max_active=1), or use a recipe with acts_from='prompt'"
            )
        return selection

    @contextmanager
    def acting(
        self, selection: ActiveAdapters | None, prompt: Sequence[int] = (), answer: Sequence[int] = ()
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the `lora` field of a request with these adapters; it stays valid while the context lasts.

        Args:
            selection: The adapters; None for the base model.
            prompt: The prompt's token ids.
            answer: Token ids of the beginning of the answer, if it broke off.

        Raises:
            AdapterError: If an adapter is not loaded and cannot be, or would not begin to act at the answer.
        """
        weights: dict[str, float] = {}
        if selection is not None:
            for key, weight in zip(selection.keys, selection.weights, strict=True):
                name = file_name(self.store, key, self.recipe.acts_from)
                self._names[name] = key
                weights[name] = weights.get(name, 0.0) + weight  # equal adapters of two texts share a file
            self._check_start(prompt, answer)
        wanted = {name: f"the adapter of text {self._names[name].text[:12]} ({name})" for name in weights}
        with self._loaded.having(wanted) as numbers:
            yield [{"id": numbers[name], "scale": weight} for name, weight in weights.items()] or NO_ADAPTERS["lora"]

    @contextmanager
    def request_options(self, selection: ActiveAdapters) -> Iterator[dict[str, Any]]:
        """Yield the options of a request: the adapters and their scales, which stay loaded while the context lasts."""
        with self.acting(selection) as lora:
            yield {"extra_body": {"lora": lora}}

    def new_engine(self) -> LlamaCppEngine:
        """Return an engine that generates in this server."""
        return LlamaCppEngine(self)

    def runnable(self, selection: ActiveAdapters) -> ServerSelection:
        """Return the object that makes a generator use these adapters.

        Raises:
            ConfigurationError: If they act from the answer on; a graph continues answers, and they would act from the
                continuation on only.
        """
        self.recipe.check_plain(_GRAPH)
        return super().runnable(selection)

    @cached_property
    def _gguf(self) -> GGUFModel:
        return GGUFModel.read(self._base)

    def _write(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        acts_from = self.recipe.acts_from
        return exported(self.store, self._names[name], self._folder, self._gguf, acts_from, self._invocation)

    @cached_property
    def _invocation(self) -> list[int]:
        needed = self.recipe.acts_from == "answer"
        return invocation(self.recipe, self.lm.tokenizer if needed else None)

    def _check_start(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        starts = self._invocation
        if starts and (list(prompt[-1:]) != starts or starts[0] in answer):
            raise AdapterError(
                f"adapters of the recipe {self.recipe.name!r} act from the last token of the prompt on, which "
                f"llama.cpp finds by its id, {starts[0]}; this request's prompt ends with {list(prompt[-1:])}"
                + (", and an answer that broke off contains that token" if starts[0] in answer else "")
            )

    def __repr__(self) -> str:
        return f"LlamaCppModel({self.base_url!r}, {self.name!r}, recipe {self.recipe.name!r})"
