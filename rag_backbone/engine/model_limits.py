"""End-of-sequence tokens and the context window of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def context_window_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens a prompt and its continuation may have in total."""
    window = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    # Tokenizers without a limit report 10**30; state-space models have no position limit at all.
    return int(window or min(tokenizer.model_max_length, 1 << 30))


def end_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a text."""
    found: set[int] = set()
    for value in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        if value is not None:
            found.update(value if isinstance(value, list | tuple) else [value])
    return frozenset(found)
