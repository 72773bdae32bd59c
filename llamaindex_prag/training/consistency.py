"""Roundtrip consistency: leaves out questions by rule that the model, reading the passage, answers differently.

Rules ask about every phrase, and not all of their questions can be answered ("What may be sold during the hours?").
Such questions teach an adapter to name any phrase of its passage. Alberti et al. 2019 (arXiv 1906.05416, section 2)
keep a generated question if a model that reads the passage gives the answer that it was generated from. Here it is kept
if the model finds that answer likely, which takes forward passes over packed sequences and no generation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.augment.augmentation import QA, QuestionSource
from llamaindex_prag.progress import Tick, scaled
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.objective import CountedLogits, batch_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from llamaindex_prag.training.packs import Pack
    from rag_backbone.engine.engine import Engine

BY_RULE: tuple[QuestionSource, ...] = ("cloze",)
LEAST = 24
"""If fewer questions are consistent, the likeliest others are kept as well: a passage is not learnt from a handful, and
those that are odd teach more of it than they disturb."""


def consistent(
    engine: Engine,
    recipe: Recipe,
    documents: Sequence[tuple[str, Sequence[QA]]],
    *,
    known: Collection[QuestionSource] = BY_RULE,
    tokens_at_once: int = 1024,
    advance: Tick | None = None,
) -> list[tuple[str, list[QA]]]:
    """Return the documents without the inconsistent questions, with at most `recipe.phrases` consistent ones each.

    Args:
        engine: Engine of the base model.
        recipe: Sets how likely an answer must be (`consistency`), and how many questions are kept (`phrases`).
        documents: Pairs of a passage and the questions about it.
        known: Question sources that are tested; questions of others are kept.
        tokens_at_once: Maximum number of tokens of questions and answers in one forward pass.
        advance: Called after each forward pass with the fraction of the work just done.
    """
    if recipe.consistency is None:
        return [(text, list(questions)) for text, questions in documents]
    logits_at = engine.run(CountedLogits, engine.model)
    kept = []
    for text, questions in documents:  # one by one: what is kept does not depend on what else is trained
        tested = [qa for qa in questions if qa.source in known]
        told = [_told(engine, text, qa) for qa in tested]
        part = scaled(advance, 1 / len(documents))
        likely = likelihoods(engine, logits_at, told, tokens_at_once, part)
        places = chosen(likely, recipe.consistency, recipe.phrases)
        kept.append((text, [qa for qa in questions if qa.source not in known] + [tested[i] for i in places]))
    return kept


def chosen(likely: Sequence[float], bound: float, most: int) -> list[int]:
    """Return the positions of the questions that are kept, in order.

    Args:
        likely: The likelihood of each question's answer, from 0 to 1.
        bound: Questions of at least this likelihood are consistent. The first `most` of them are kept; if there are
            fewer than `LEAST`, the `most` likeliest questions, whatever their likelihood.
        most: Maximum number of questions that are kept.
    """
    kept = [i for i, p in enumerate(likely) if p >= bound]
    if len(kept) < LEAST:
        kept = sorted(range(len(likely)), key=lambda i: -likely[i])
    return sorted(kept[:most])


@torch.no_grad()
def likelihoods(
    engine: Engine,
    logits_at: CountedLogits,
    examples: Sequence[Example],
    tokens_at_once: int,
    advance: Tick | None = None,
) -> list[float]:
    """Return the geometric mean of the base model's probabilities of each sequence's counted tokens."""
    numbers = {id(example): i for i, example in enumerate(examples)}
    found = [0.0] * len(examples)
    longest = max((len(example.ids) for example in examples), default=0)
    packs = logits_at.packs(examples, longest + tokens_at_once)  # so that a long passage is read once for many
    for pack in packs:
        parts = engine.run(_logprobs, engine.model, logits_at, pack).split([e.counted for e in pack.examples])
        for example, logprobs in zip(pack.examples, parts, strict=True):
            found[numbers[id(example)]] = float(logprobs.mean().exp())
        if advance is not None:
            advance(1 / len(packs))
    return found


def _told(engine: Engine, text: str, qa: QA) -> Example:
    """Return the question with the passage in the prompt, and its answer, which counts with the end of sequence."""
    prompt = prompt_ids(engine.tokenizer, qa.question, [text])
    return Example((*prompt, *answer_ids(engine.tokenizer, qa.answer, end=True)), len(prompt))


def _logprobs(model: PreTrainedModel, logits_at: CountedLogits, pack: Pack) -> Tensor:
    batch = batch_of([pack], model.device)
    return logits_at(batch).log_softmax(-1).gather(1, batch.targets[:, None]).squeeze(1).cpu()
