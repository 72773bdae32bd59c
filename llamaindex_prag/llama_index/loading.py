"""Loads a model with its store and translator from names, and describes it for the serialised form of an LLM."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.store import opening
from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import cache_root
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.llamacpp_server import LlamaCppServer
from rag_backbone.loading.model_checks import refuse_unless_instance

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import AdapterModel
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
    from llamaindex_prag.serving.served_model import ServedModel
    from llamaindex_prag.translator.translator import Translator

_STORES = "adapters"
_BACKENDS = ("vllm", "llama.cpp")
_LOADING = ("name", "device", "dtype", "revision")


def load_model(lm: CausalLM | str | Path | Mapping[str, Any] | None) -> CausalLM:
    """Load the model of a name or description; a loaded model is returned as it is.

    Code that comes with a model is never run.

    Raises:
        ConfigurationError: If `lm` is None, as in the serialised form of an LLM whose model exists only in memory, the
            description has keys other than those that name a model, or `lm` is another object, such as a model without
            its tokenizer.
        ModelLoadError: If the model cannot be loaded.
    """
    if isinstance(lm, CausalLM):
        return lm
    if lm is None:
        raise ConfigurationError(
            "this LLM's model was made in memory, so it cannot be loaded again; pass it: from_dict(data, lm=lm)"
        )
    refuse_unless_instance("lm", lm, Mapping | str | Path, "'embedded', a folder, a Hub id or a CausalLM")
    if not isinstance(lm, Mapping):
        return CausalLM.from_pretrained(lm)
    if unknown := sorted(set(lm) - set(_LOADING)):
        raise ConfigurationError(f"the description of a model has {', '.join(unknown)}; known: {', '.join(_LOADING)}")
    return CausalLM.from_pretrained(**lm)


def load_translator(translator: Translator | str | Path | None, lm: CausalLM) -> Translator | None:
    """Load the translator from a folder; a translator or None is returned as it is."""
    if not isinstance(translator, str | Path):
        return translator
    from llamaindex_prag.translator.translator import Translator

    return Translator.load(translator, lm)


def open_store(store: Any, lm: CausalLM) -> Any:
    """Open the store of a folder, URL or description; None for the store in the user's cache for this model."""
    if store is None:
        store = cache_root() / _STORES / lm.fingerprint[:16]
    return opening.open_store(store, model=lm.fingerprint) if isinstance(store, str | Path | Mapping) else store


def load_served(
    base_url: str | LlamaCppServer,
    *,
    lm: CausalLM | str | Path | Mapping[str, Any] | None,
    store: Any,
    recipe: str | Recipe,
    max_adapters: int,
    translator: Any,
    server: Mapping[str, Any] | None,
) -> ServedModel | LlamaCppModel:
    """Return the model of a server; the arguments are those of `ParametricLLM`.

    Raises:
        ConfigurationError: If no store is given, a translator is given, which needs the model's weights, or the backend
            is unknown.
    """
    from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
    from llamaindex_prag.serving.served_model import ServedModel

    if translator is not None:
        raise ConfigurationError(
            "a translator reads documents with the model's weights, which base_url does not load; leave out one of them"
        )
    if store is None:
        raise ConfigurationError("base_url needs the adapters' store: ParametricLLM(base_url=..., store=FOLDER)")
    refuse_unless_instance("lm", lm, CausalLM | Mapping | str | Path | None, "a folder, a Hub id, a CausalLM or None")
    here = isinstance(base_url, LlamaCppServer)
    options = {"backend": "llama.cpp" if here else "vllm", **(server or {})}
    backend = options.pop("backend")
    if backend not in _BACKENDS or (here and backend != "llama.cpp"):
        raise ConfigurationError(f"server={{'backend': {backend!r}}}; known: {', '.join(_BACKENDS)}")
    kind: Any = LlamaCppModel if backend == "llama.cpp" else ServedModel
    refuse_unknown(options, list(inspect.signature(kind).parameters)[2:], "ParametricLLM(server=...)")
    own = lm.fingerprint if isinstance(lm, CausalLM) else None
    if isinstance(store, str | Path | Mapping):
        store = opening.open_store(store, model=own)
    served: ServedModel | LlamaCppModel = kind(
        base_url, store, lm=lm, recipe=recipe, max_adapters=max_adapters, **options
    )
    return served


def described(model: AdapterModel) -> dict[str, Any]:
    """Describe a model as plain data; parts without a folder or name are None."""
    translator = model.translations.translator if model.translations else None
    return {
        "lm": model.lm.loaded_with,
        "store": opening.described(model.store),
        "recipe": model.recipe.to_dict(),
        "max_adapters": model.max_adapters,
        "translator": None if translator is None else translator.name,
        **model.location(),
    }


def refuse_unless_loadable(model: AdapterModel) -> None:
    """Check that `described` leads back to an equal model.

    Raises:
        ConfigurationError: If model, store or translator exist only in memory.
    """
    told = described(model)
    lacking = [name for name in ("lm", "store") if told[name] is None]
    if model.translations is not None and told["translator"] is None:
        lacking.append("translator")
    if lacking:
        raise ConfigurationError(
            f"{' and '.join(lacking)} of this LLM exist only in this process's memory, so another process "
            "(num_workers) cannot get a copy; load from folders, or stay in one process"
        )
