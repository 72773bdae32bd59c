"""GGUF files of single documents' adapters, named by content, for a llama.cpp server.

    lora-<hash>.gguf     acts on every token
    alora-<hash>.gguf    acts from the prompt's last token on, as adapters of recipes with `acts_from="answer"` do

A server reports the names of the files that it loaded, so a client finds an adapter by the name that its content has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.serving.merging import address, merged
from llamaindex_prag.store.gguf_file import GGUFModel, export_gguf
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rag_backbone.engine.adapters import ActsFrom
    from rag_backbone.loading.causal_lm import CausalLM

logger = logging.getLogger(__name__)

_EXACT = {"F32", "F16", "BF16"}


def export_adapters(
    store: MergeableStore,
    folder: str | Path,
    *,
    base: str | Path,
    recipe: str | Recipe = "distill",
    keys: Sequence[AdapterKey] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Path]:
    """Write stored adapters as files that a `llama-server` loads when it starts.

    Start it with `--lora FILE` for each of them and `--lora-init-without-apply`.

    Args:
        store: Open store of the adapters.
        folder: Folder of the files; created if it does not exist. Existing files are kept.
        base: The base model's GGUF file.
        recipe: Recipe of the adapters.
        keys: The adapters; None for all of this recipe.
        tokenizer: The model's tokenizer; needed by recipes with `acts_from="answer"` only.

    Returns:
        The files, in the order of the keys.

    Raises:
        AdapterError: If there is no adapter of this recipe, or the file of another model was given.
        ConfigurationError: If the base is not a model file of a known architecture, or the tokenizer is missing.
    """
    chosen, model = settled(get_recipe(recipe), None, store.keys), GGUFModel.read(base)
    wanted = [key for key in store.keys() if key.recipe == chosen.key] if keys is None else list(keys)  # noqa: SIM118
    if not wanted:
        raise AdapterError(f"the store has no adapters of the recipe {chosen.name!r}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    starts = invocation(chosen, tokenizer)
    return [exported(store, key, Path(folder), model, chosen.acts_from, starts) for key in wanted]


def exported(
    store: MergeableStore,
    key: AdapterKey,
    folder: Path,
    base: GGUFModel,
    acts_from: ActsFrom,
    starts: Sequence[int],
) -> Path:
    """Return an adapter's file in a folder, written unless it exists."""
    path = folder / file_name(store, key, acts_from)
    if not path.is_file():
        export_gguf(merged(store, ActiveAdapters.of([key])), path, base=base, base_model=store.model, invocation=starts)
    return path


def file_name(store: MergeableStore, key: AdapterKey, acts_from: ActsFrom) -> str:
    """Return the name of an adapter's file, which its content determines.

    Raises:
        AdapterMissingError: If the store lacks the adapter.
    """
    kind = "alora" if acts_from == "answer" else "lora"
    return f"{kind}-{address(store, ActiveAdapters.of([key]))}.gguf"


def invocation(recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Return the tokens from which on adapters of a recipe act: the last of every prompt; empty if they always act.

    Raises:
        ConfigurationError: If the tokenizer is needed and was not given.
    """
    if recipe.acts_from != "answer":
        return []
    if tokenizer is None:
        raise ConfigurationError(
            f"adapters of the recipe {recipe.name!r} act from the last token of a prompt on, which the model's "
            "tokenizer tells; pass it (tokenizer=, or lm=)"
        )
    return prompt_ids(tokenizer, "Who?")[-1:]


def check_same_model(base: GGUFModel, lm: CausalLM) -> None:
    """Refuse the GGUF file of another model than the adapters' base model.

    The weights of normalisation layers are in full precision in every quantisation, and no two models share them.

    Raises:
        ConfigurationError: If they differ.
    """
    import torch

    for name, ours in (
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
    ):
        there, here = base.full_precision(name), lm.model.state_dict().get(ours)
        if there is None or here is None:
            continue
        same = torch.equal(torch.from_numpy(there).to(torch.bfloat16), here.detach().cpu().to(torch.bfloat16))
        if there.shape != tuple(here.shape) or not same:
            raise ConfigurationError(
                f"{base.path} is the file of another model than {lm.name}, on which the adapters were trained: their "
                f"{name.removesuffix('.weight')} differ. Serve a GGUF file of {lm.name}, in any quantisation."
            )


def note_quantisation(quantisation: str, server: str) -> None:
    """Log that answers may differ from those of the weights that the adapters were trained on."""
    if quantisation and quantisation.rsplit(maxsplit=1)[-1] not in _EXACT:  # such as "all F32"
        logger.warning(
            "%s runs the model as %s. Adapters act on it as they are; if they were trained on weights of a higher "
            "precision, answers can differ from those, the more the fewer bits the weights have",
            server,
            quantisation,
        )
