"""Warm-up: a document-free adapter that learns the form of answers from questions that no stored document answers.

    (question, answer) pairs -> one adapter -> starting point of the documents' adapters, or a control

PRAG's published runs start with such a stage (Su et al. 2025, section 4.1: 600 to 2,000 pairs of other questions, one
epoch, no passage, the end of the answer included). Much of what F1 rewards is the form of an answer, so the effect of
the documents shows only in comparison with an adapter that has learnt the form alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import WARM_UP, Recipe
from llamaindex_prag.adapters.start import start_key
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.examples import Example, TrainingDocument
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from llamaindex_prag.adapters.layout import Layout
    from llamaindex_prag.store.base import AdapterStore
    from rag_backbone.loading.causal_lm import CausalLM


def warm_up(lm: CausalLM, store: AdapterStore, recipe: Recipe, pairs: Sequence[tuple[str, str]]) -> AdapterKey:
    """Train the warm-up adapter unless the store already holds it.

    Args:
        lm: The base model.
        store: Where the adapter is kept.
        recipe: Recipe of the documents; the warm-up adapter has the same rank, alpha, targets and layers.
        pairs: Questions with their answers.

    Returns:
        The adapter's key; `recipe.changed(start=key.digest)` is the recipe of documents that start from it.

    Raises:
        ConfigurationError: If there are no pairs, or a question or an answer is blank.
    """
    if not pairs:
        raise ConfigurationError("pairs is empty; a warm-up needs questions with answers (PRAG uses 600 to 2,000)")
    for question, answer in pairs:
        if not question.strip() or not answer.strip():
            raise ConfigurationError(f"a pair is {(question, answer)!r}; neither question nor answer may be blank")
    form = {"rank": recipe.rank, "alpha": recipe.alpha, "targets": recipe.targets, "layers": recipe.layers}
    first = WARM_UP.changed(**form, max_tokens=recipe.max_tokens, seed=recipe.seed)
    text = json.dumps([list(pair) for pair in pairs], ensure_ascii=False)
    key = AdapterKey(lm.fingerprint, first.key, text_hash(text))
    if key in store:
        return key
    layout = layout_of(lm.model, rank=first.rank, targets=first.targets, layers=first.layers)
    document = TrainingDocument(text, tuple(_example(lm, *pair) for pair in pairs))
    (trained,) = Trainer(lm.engine, layout, first).train([document])
    record: dict[str, Any] = {
        "recipe": first.to_dict(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": trained.steps,
        "last_loss": trained.last_loss,
    }
    store.put(key, trained.adapter, record, owners=(f"warm-up {key.text[:16]}",))
    return key


def start_of(store: AdapterStore, recipe: Recipe, layout: Layout) -> Tensor | None:
    """Return the (layout.size,) values from which a recipe's documents start; None if it starts from no adapter.

    Raises:
        AdapterError: If the store does not hold the adapter, or its layout differs.
    """
    import torch

    key = start_key(store, recipe)
    if key is None:
        return None
    adapter = store.get(key)
    if adapter is None or adapter.layout != layout:
        has = None if adapter is None else adapter.layout
        raise AdapterError(
            f"the documents of the recipe {recipe.name!r} start from the adapter {recipe.start[:12]}…, which is of "
            f"{has!r} and not of {layout!r}"
        )
    return torch.from_numpy(adapter.buffer)


def _example(lm: CausalLM, question: str, answer: str) -> Example:
    prompt = prompt_ids(lm.tokenizer, question)
    return Example((*prompt, *answer_ids(lm.tokenizer, answer, end=True)), 1)
