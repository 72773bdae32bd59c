"""A document-free adapter: the form of answers, learnt from questions that no stored document answers.

    (question, answer) pairs -> one adapter -> where the documents' adapters start, or a control beside them

PRAG's published runs start from such a stage (Su et al. 2025, section 4.1: 600 to 2,000 pairs of other questions, one
epoch, no passage, the end of the answer included). Much of what F1 rewards is the form of an answer, so what documents
bring can be seen only beside an adapter that has learnt the form alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import WARM_UP, Recipe
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
    """Train the adapter, unless the store holds it.

    Args:
        lm: The base model.
        store: Where it is kept.
        recipe: Of the documents: its adapters and the warm-up's have the same form.
        pairs: Questions with their answers.

    Returns:
        Its key; `recipe.changed(start=key.digest)` is the recipe of documents that start from it.

    Raises:
        ConfigurationError: If there are no pairs, or one of them is blank.
    """
    if not pairs:
        raise ConfigurationError("pairs is empty; a warm-up needs questions with their answers, PRAG has 600 to 2,000")
    for question, answer in pairs:
        if not question.strip() or not answer.strip():
            raise ConfigurationError(f"a pair is {(question, answer)!r}; it must be a question and an answer")
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


def start_of(store: AdapterStore, recipe: Recipe, key: AdapterKey | None, layout: Layout) -> Tensor | None:
    """The values from which documents of a recipe start; None: it starts from none.

    Raises:
        ConfigurationError: If the recipe and the key do not name the same adapter.
        AdapterError: If the store does not hold it, or it has another form.
    """
    import torch

    if recipe.start != (key.digest if key else ""):
        raise ConfigurationError(
            f"the recipe's start is {recipe.start or 'empty'}, and the given start is {key.digest if key else None}; "
            "both must name the same adapter: recipe.changed(start=key.digest), and start=key"
        )
    if key is None:
        return None
    adapter = store.get(key)
    if adapter is None or adapter.layout != layout:
        has = "holds no such adapter" if adapter is None else f"holds one of {adapter.layout!r}, not of {layout!r}"
        raise AdapterError(f"documents are to start from the adapter {key.text[:12]}…, and the store {has}")
    return torch.from_numpy(adapter.buffer)


def _example(lm: CausalLM, question: str, answer: str) -> Example:
    prompt = prompt_ids(lm.tokenizer, question)
    end = lm.tokenizer.eos_token_id
    return Example((*prompt, *answer_ids(lm.tokenizer, answer), *([] if end is None else [end])), 1)
