"""A model in a vLLM server that answers from stored adapters: `ParametricModel`'s counterpart without local weights.

    loading="push"      this process merges and exports adapters, and has the server load them       (LoadedAdapters)
    loading="resolve"   the request names the documents; the server reads and merges their adapters  (vllm_resolver)

Every request names the adapters it wants, so requests cannot see each other's adapters; a request without adapters
uses the base model. Training and measuring adapters needs the weights, which are loaded from `lm` at first use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.serving.document_names import DocumentSet, checked_secret
from llamaindex_prag.serving.exports import ExportFolders
from llamaindex_prag.serving.in_server import ModelInServer
from llamaindex_prag.serving.loaded import LoadedAdapters
from llamaindex_prag.serving.lora_server import LoraServer
from llamaindex_prag.serving.merging import address, merged
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import cache_root

if TYPE_CHECKING:
    from llamaindex_prag.serving.served_engine import ServedEngine
    from rag_backbone.engine.adapters import Ensemble
    from rag_backbone.loading.causal_lm import CausalLM

Loading = Literal["push", "resolve"]


class ServedModel(ModelInServer):
    """The model of a server, with the adapters of one store.

    Args:
        base_url: Address of the server, including `/v1`.
        store: Open store of the adapters. With `loading="resolve"`, the server must be able to read its folder too.
        model: Name of the base model in the server; None for the first one listed.
        lm: The same model for its tokenizer, and for training and measuring: a name or folder, loaded when needed, or a
            `CausalLM`. None if neither is needed, as in a graph with `missing="context"`.
        recipe: Recipe of the adapters. If it leaves the question source open (`prag`), the size of `lm` decides, or
            without `lm`, the adapters now in the store (`augment.choice.settled`).
        max_adapters: Maximum number of documents per call. vLLM's `--max-lora-rank` must be at least `max_adapters`
            times the recipe's rank.
        loading: Whether this process (`"push"`) or the server (`"resolve"`) merges the adapters.
        folder: Folder to which merged adapters are exported; None for one in the user's cache. The server must be able
            to read it.
        server_folder: Path of that folder as the server sees it, if different.
        keep: Number of merged adapters that stay loaded.
        secret: Signs the document names of `loading="resolve"`.
        api_key: None to use the environment variable `OPENAI_API_KEY`, if set.
        timeout: Timeout of a request in seconds.

    Raises:
        ConfigurationError: If an option is unknown, the server does not have the model, a loaded `lm` is not the model
            that the store's adapters were trained on, or the recipe's adapters act from the answer on.
        ServerUnavailableError: If the server cannot be reached.

    Example:
        >>> served = ServedModel("http://127.0.0.1:8000/v1", LMDBStore("adapters", model=None))  # doctest: +SKIP
        >>> create_dynamic_rag(
        ...     ChatOpenAI(base_url=served.base_url, model=served.name), retriever, injection="parametric",
        ...     adapters=served, missing="context")  # doctest: +SKIP
    """

    server: LoraServer
    _allowing_more = "max_adapters, and the server's --max-lora-rank"

    def __init__(
        self,
        base_url: str,
        store: MergeableStore,
        *,
        model: str | None = None,
        lm: CausalLM | str | Path | Mapping[str, Any] | None = None,
        recipe: str | Recipe = "distill",
        max_adapters: int = 8,
        loading: Loading = "push",
        folder: str | Path | None = None,
        server_folder: str | None = None,
        keep: int = 64,
        secret: str | bytes | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        if loading not in get_args(Loading):
            raise ConfigurationError(f"loading is {loading!r}; known: {', '.join(get_args(Loading))}")
        if secret is not None and loading == "push":
            raise ConfigurationError("secret signs the names of documents, so it belongs to loading='resolve'")
        super().__init__(store, lm=lm, recipe=recipe, max_adapters=max_adapters)
        self.recipe.check_plain("a vLLM server")
        self.loading = loading
        self.server = LoraServer(base_url, api_key=api_key, timeout=timeout)
        self.name, self.context_window = _served(self.server, model)
        self._secret = checked_secret(secret)
        self._asked = {"folder": folder, "server_folder": server_folder, "keep": keep, "timeout": timeout}
        self._loaded: LoadedAdapters | None = None
        if loading == "push":
            folders = ExportFolders(Path(folder) if folder is not None else _cached(self.server), keep=keep)
            self._loaded = LoadedAdapters(self.server, folders, base_model_name=self.name, server_root=server_folder)

    def location(self) -> dict[str, Any]:
        """Return the arguments of `ParametricLLM` that lead to this model, except secrets."""
        return {"base_url": self.base_url, "server": {"model": self.name, "loading": self.loading, **self._asked}}

    def check_chat_model(self, chat: object) -> None:
        """Check that a chat model uses this server and this base model.

        Raises:
            ConfigurationError: If it does not; the message contains the line to write.
        """
        line = f"ChatOpenAI(base_url={self.base_url!r}, model={self.name!r}, ...)"
        client: Any = getattr(chat, "root_client", None)
        if client is None:
            raise ConfigurationError(
                f"the adapters are in {self.server.name}, but {type(chat).__name__} does not use it. Use {line}"
            )
        url, name = str(client.base_url).rstrip("/"), getattr(chat, "model_name", None)
        if (url, name) != (self.base_url, self.name):
            raise ConfigurationError(
                f"the adapters are in {self.server.name} for {self.name!r}, but the chat model asks {url} for "
                f"{name!r}. Use {line}"
            )

    def check_strategy(self, merge: Merge = "mean", ensemble: Ensemble | None = None) -> None:
        """Refuse a way of combining adapters that this server, or the names of `loading="resolve"`, cannot follow."""
        if merge == "shared_once" and self.loading == "resolve":
            raise ConfigurationError(
                "merge='shared_once' subtracts an adapter of another recipe, which the names of loading='resolve' "
                "cannot express; use loading='push', or another merge"
            )
        super().check_strategy(merge, ensemble)

    @contextmanager
    def name_of(self, selection: ActiveAdapters | None) -> Iterator[str]:
        """Yield the model name for a request with these adapters; it stays valid while the context lasts."""
        if selection is None:
            yield self.name
        elif self._loaded is None:
            yield DocumentSet.of(selection).name(self._secret)
        else:
            with self._loaded.using(self._pushed(selection), lambda: merged(self.store, selection)) as name:
                yield name

    def lost(self, selection: ActiveAdapters) -> None:
        """Record that the server no longer knows the name of these adapters."""
        if self._loaded is not None:
            self._loaded.lost(self._pushed(selection))

    def new_engine(self) -> ServedEngine:
        """Return an engine that generates in this server."""
        from llamaindex_prag.serving.served_engine import ServedEngine

        return ServedEngine(self)

    @contextmanager
    def request_options(self, selection: ActiveAdapters) -> Iterator[dict[str, Any]]:
        """Yield the options of a request: the model name, which stays valid while the context lasts."""
        with self.name_of(selection) as name:
            yield {"model": name}

    def _pushed(self, selection: ActiveAdapters) -> str:
        return f"prag-{address(self.store, selection)}"

    def __repr__(self) -> str:
        return f"ServedModel({self.base_url!r}, {self.name!r}, recipe {self.recipe.name!r}, {self.loading})"


def _served(server: LoraServer, model: str | None) -> tuple[str, int]:
    """Return the base model's name and context window.

    Raises:
        ConfigurationError: If the server does not have the model.
    """
    cards = server.models()
    if server.is_llamacpp(cards):
        raise ConfigurationError(
            f"{server.name} is llama.cpp's, which takes adapters in another way: use LlamaCppModel, or "
            "ParametricLLM(server={'backend': 'llama.cpp'})"
        )
    bases = {c.id: c for c in cards if not getattr(c, "parent", None)}
    if not bases:
        raise ConfigurationError(f"{server.name} lists no model; start it with one, such as `vllm serve MODEL`")
    if model is not None and model not in bases:
        raise ConfigurationError(f"{server.name} has no model {model!r}; it has {', '.join(bases)}")
    name = model or next(iter(bases))
    return name, int(getattr(bases[name], "max_model_len", None) or 4096)


def _cached(server: LoraServer) -> Path:
    return cache_root() / "served" / hashlib.sha256(server.base_url.encode()).hexdigest()[:16]
