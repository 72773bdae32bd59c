"""From names to a model with its store and translator, and back: what the serialised form of an LLM holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import cache_root
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.model_checks import refuse_unless_instance

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import AdapterModel
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.serving.served_model import ServedModel
    from llamaindex_prag.translator.translator import Translator

_STORES = "adapters"
_LOADING = ("name", "device", "dtype", "revision")


def load_model(lm: CausalLM | str | Path | Mapping[str, Any] | None) -> CausalLM:
    """The model of a name or description, or itself.

    Raises:
        ConfigurationError: If there is neither, as in the serialised form of an LLM whose model was made in memory, the
            description wants more than to name a model, or it is another object, such as a model without its tokenizer.
            It never lets code that comes with a model run.
        ModelLoadError: If it cannot be loaded.
    """
    if isinstance(lm, CausalLM):
        return lm
    if lm is None:
        raise ConfigurationError(
            "this LLM's model was made in memory, so it cannot be loaded again; give it: from_dict(data, lm=lm)"
        )
    refuse_unless_instance("lm", lm, Mapping | str | Path, "'embedded', a folder, a Hub id or a CausalLM")
    if not isinstance(lm, Mapping):
        return CausalLM.from_pretrained(lm)
    if unknown := sorted(set(lm) - set(_LOADING)):
        raise ConfigurationError(f"the description of a model has {', '.join(unknown)}; known: {', '.join(_LOADING)}")
    return CausalLM.from_pretrained(**lm)


def load_translator(translator: Translator | str | Path | None, lm: CausalLM) -> Translator | None:
    """The translator of a folder, or itself."""
    if not isinstance(translator, str | Path):
        return translator
    from llamaindex_prag.translator.translator import Translator

    return Translator.load(translator, lm)


def open_store(store: Any, lm: CausalLM) -> Any:
    """The store of a folder or description, or itself; without any, the one in the user's cache for this model."""
    from llamaindex_prag.store.lmdb_store import LMDBStore

    if store is None:
        store = cache_root() / _STORES / lm.fingerprint[:16]
    if isinstance(store, Mapping):
        return LMDBStore(model=lm.fingerprint, **store)
    return LMDBStore(store, model=lm.fingerprint) if isinstance(store, str | Path) else store


def load_served(
    base_url: str,
    *,
    lm: CausalLM | str | Path | Mapping[str, Any] | None,
    store: Any,
    recipe: str | Recipe,
    max_adapters: int,
    translator: Any,
    server: Mapping[str, Any] | None,
) -> ServedModel:
    """The model of a server; arguments as of `ParametricLLM`.

    Raises:
        ConfigurationError: If there is no store, or a translator, which needs the model's weights.
    """
    from llamaindex_prag.serving.served_model import ServedModel
    from llamaindex_prag.store.lmdb_store import LMDBStore

    if translator is not None:
        raise ConfigurationError("a translator reads documents with the model's weights, which base_url leaves away")
    if store is None:
        raise ConfigurationError("base_url needs the adapters' store: ParametricLLM(base_url=..., store=FOLDER)")
    refuse_unless_instance("lm", lm, CausalLM | Mapping | str | Path | None, "a folder, a Hub id, a CausalLM or None")
    if server:
        refuse_unknown(server, list(inspect.signature(ServedModel).parameters)[2:], "ParametricLLM(server=...)")
    own = lm.fingerprint if isinstance(lm, CausalLM) else None
    if isinstance(store, Mapping):
        store = LMDBStore(model=own, **store)
    elif isinstance(store, str | Path):
        store = LMDBStore(store, model=own)
    return ServedModel(base_url, store, lm=lm, recipe=recipe, max_adapters=max_adapters, **(server or {}))


def described(model: AdapterModel) -> dict[str, Any]:
    """Return a model as plain data: what has no folder or name is None."""
    from llamaindex_prag.store.lmdb_store import LMDBStore

    translator = model.translations.translator if model.translations else None
    return {
        "lm": model.lm.loaded_with,
        "store": model.store.described() if isinstance(model.store, LMDBStore) else None,
        "recipe": model.recipe.to_dict(),
        "max_adapters": model.max_adapters,
        "translator": None if translator is None else translator.name,
        **model.location(),
    }


def refuse_unless_loadable(model: AdapterModel) -> None:
    """Raise where `described` would not lead back to an equal model.

    Raises:
        ConfigurationError: If model, store or translator exist in memory only.
    """
    told = described(model)
    lacking = [name for name in ("lm", "store") if told[name] is None]
    if model.translations is not None and told["translator"] is None:
        lacking.append("translator")
    if lacking:
        raise ConfigurationError(
            f"{' and '.join(lacking)} of this LLM exist in this process's memory only, so another process "
            "(num_workers) cannot have a copy; load them from folders, or stay in one process"
        )
