"""Generates short greedy answers with documents' factors on the model, to validate a translator.

Not for serving: there are no slots and no prefix cache; each row of a batch uses the factors of its own document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from llamaindex_prag.prompts import clean_answer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel

    from llamaindex_prag.training.factors import DocumentFactors
    from rag_backbone.engine.engine import Engine

_TOGETHER = 32


@torch.no_grad()
def answers(
    engine: Engine, factors: DocumentFactors, asked: Sequence[tuple[int, Sequence[int]]], *, tokens: int = 16
) -> list[str]:
    """Generate an answer to each prompt, and return the cleaned answers in order.

    Args:
        engine: Engine of the base model.
        factors: Factors of the documents.
        asked: Pairs of a document's index and the tokens of a prompt.
        tokens: Maximum number of tokens in an answer.
    """
    from transformers import GenerationConfig

    tokenizer, found = engine.tokenizer, []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id
    )
    for start in range(0, len(asked), _TOGETHER):
        part = asked[start : start + _TOGETHER]
        width = max(len(ids) for _, ids in part)
        ids = torch.tensor([[*[pad] * (width - len(row)), *row] for _, row in part])
        seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for _, row in part])
        said = engine.run(_generated, engine.model, factors, [document for document, _ in part], ids, seen, config)
        found += [clean_answer(tokenizer.decode(row[width:], skip_special_tokens=True)) for row in said]
    return found


def _generated(
    model: PreTrainedModel,
    factors: DocumentFactors,
    documents: Sequence[int],
    ids: Tensor,
    seen: Tensor,
    config: GenerationConfig,
) -> Tensor:
    with factors.on(torch.tensor(documents, device=model.device)):
        said: Tensor = model.generate(
            ids.to(model.device), attention_mask=seen.to(model.device), generation_config=config
        )
    return said
