"""Context distillation: the model that has the passage before it teaches the model that has not.

For each question about the passage, the base model answers greedily with the passage in its prompt. Its distributions
at the answer's tokens and at the end of the sequence are what the student, who sees the question alone, learns (Snell
et al. 2022, arXiv 2209.15189, section 3). The question's author contributes nothing but the question.

Two more kinds of sequence keep the rest of the model as it was: questions of other subjects, taught by the model
without any passage, and questions asked with the passage, taught by the model with it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.augment.augmentation import QA, QuestionSource
from llamaindex_prag.progress import Tick, each_token
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.examples import Example, Teacher, TrainingDocument
from llamaindex_prag.training.objective import CountedLogits, batch_of
from llamaindex_prag.training.packs import Pack
from rag_backbone.engine.requests import Generation, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rag_backbone.engine.engine import Engine

ANSWER_TOKENS = 48
_BY_RULE: tuple[QuestionSource, ...] = ("cloze",)
TOP = 64
UNRELATED = (
    "What is the capital of Japan?",
    "How many legs does a spider have?",
    "Who painted the Mona Lisa?",
    "What gas do plants take in from the air?",
    "In which year did the Second World War end?",
    "What is the largest planet of the solar system?",
    "Which language is spoken in Brazil?",
    "What is the chemical symbol of gold?",
    "Who wrote Hamlet?",
    "What is seven times eight?",
    "Which ocean lies between Europe and America?",
    "What do bees make?",
    "How many days has a leap year?",
    "Which metal is liquid at room temperature?",
    "What is the opposite of north?",
    "Who developed the theory of relativity?",
    "What is the tallest animal on land?",
    "On which continent is Egypt?",
    "What is the boiling point of water in Celsius?",
    "Which instrument has 88 keys?",
    "What is the currency of the United Kingdom?",
    "How many strings does a violin have?",
    "What colour do blue and yellow make?",
    "Which country is famous for the Great Wall?",
)


def distilled(
    engine: Engine,
    recipe: Recipe,
    documents: Sequence[tuple[str, Sequence[QA]]],
    *,
    known: Collection[QuestionSource] = _BY_RULE,
    tokens_at_once: int = 1024,
    advance: Tick | None = None,
) -> list[TrainingDocument]:
    """Training sequences of several passages.

    Args:
        engine: Of the base model.
        recipe: How many questions of which kind.
        documents: (passage, questions about it).
        known: Whose questions come with an answer that is taught as it is; by default those made by rule. A teacher
            that likes to speak in sentences, as small models do, says it less well. All others it answers.
        tokens_at_once: The most tokens of one forward.
        advance: Told each part of the work that is done, with every token of an answer; all parts are 1.
    """
    asked: list[_Asked] = []
    counts = []
    for text, questions in documents:
        of_document = _asked(engine, recipe, text, questions, known)
        asked += of_document
        counts.append(len(of_document))
    made = iter(_taught(engine, asked, tokens_at_once, advance))
    grouped = [[next(made) for _ in range(count)] for count in counts]
    return [
        TrainingDocument(text, tuple(e for e in group if e is not None))
        for (text, _), group in zip(documents, grouped, strict=True)
    ]


def taught(engine: Engine, prompts: Sequence[Sequence[int]], *, tokens_at_once: int = 1024) -> list[Example]:
    """The model's own answers to prompts, with its distributions; those to which it says nothing are left out."""
    found = _taught(engine, [_Asked(list(p), list(p)) for p in prompts], tokens_at_once)
    return [e for e in found if e is not None]


class _Asked(NamedTuple):
    teacher: list[int]
    """Its prompt."""
    student: list[int]
    answer: list[int] | None = None
    """Known beforehand; the teacher is not asked."""


def _asked(
    engine: Engine, recipe: Recipe, text: str, questions: Sequence[QA], sources: Collection[QuestionSource]
) -> list[_Asked]:
    tokenizer, rng = engine.tokenizer, random.Random(f"{recipe.seed}/{text_hash(text)}")  # noqa: S311
    end = tokenizer.eos_token_id
    known = {
        qa: [*answer_ids(tokenizer, qa.answer), *([] if end is None else [end])]
        for qa in questions
        if qa.source in sources
    }
    told = {qa: prompt_ids(tokenizer, qa.question, [text]) for qa in questions}
    found = [_Asked(told[qa], prompt_ids(tokenizer, qa.question), known.get(qa)) for qa in questions]
    again = rng.sample(list(questions), min(recipe.with_passage, len(questions)))
    found += [_Asked(told[qa], told[qa]) for qa in again]
    others = [prompt_ids(tokenizer, q) for q in rng.sample(UNRELATED, min(recipe.unrelated, len(UNRELATED)))]
    return found + [_Asked(prompt, prompt) for prompt in others]


def _taught(engine: Engine, asked: Sequence[_Asked], tokens: int, advance: Tick | None = None) -> list[Example | None]:
    """An example for each question; None where the teacher said nothing."""
    open_ones = [a for a in asked if a.answer is None]
    most = ANSWER_TOKENS * max(len(open_ones), 1)
    watched = None if advance is None else each_token(advance, 0.5 / most)
    requests = [Request(a.teacher, max_new_tokens=ANSWER_TOKENS, stop_when=watched) for a in open_ones]
    said = iter(engine.generate_batch(requests))
    answers = [_said(engine, next(said)) if a.answer is None else a.answer for a in asked]
    full = [
        Example((*a.teacher, *ids), len(a.teacher)) if ids and a.answer is None else None
        for a, ids in zip(asked, answers, strict=True)
    ]
    examples: list[Example | None] = []
    for a, ids, thought in zip(asked, answers, _distributions(engine, full, tokens, advance), strict=True):
        teacher = thought and replace(thought, sees_more=a.teacher != a.student)
        examples.append(Example((*a.student, *ids), len(a.student), teacher) if ids else None)
    return examples


def _said(engine: Engine, generation: Generation) -> list[int]:
    """An answer that was cut off teaches no end."""
    return generation.token_ids + _end(engine, generation.finish_reason)


def _end(engine: Engine, reason: str) -> list[int]:
    end = engine.tokenizer.eos_token_id
    return [end] if reason == "eos" and end is not None else []


@torch.no_grad()
def _distributions(
    engine: Engine, examples: Sequence[Example | None], tokens: int, advance: Tick | None
) -> list[Teacher | None]:
    """What the base model thinks of the counted tokens' places."""
    known = {i: e for i, e in enumerate(examples) if e is not None}
    numbers = {id(e): i for i, e in known.items()}
    found: list[Teacher | None] = [None] * len(examples)
    logits_at = engine.run(CountedLogits, engine.model)
    packs = list(logits_at.packs(list(known.values()), tokens))
    for pack in packs:
        best = engine.run(_likeliest, engine.model, logits_at, pack)
        sizes = [e.counted for e in pack.examples]
        parts = zip(pack.examples, best.ids.split(sizes), best.logprobs.split(sizes), strict=True)
        for example, ids, values in parts:
            found[numbers[id(example)]] = Teacher(ids.clone(), values.clone())
        if advance is not None:
            advance(0.5 / len(packs))
    return found


def _likeliest(model: PreTrainedModel, logits_at: CountedLogits, pack: Pack) -> Teacher:
    logprobs = logits_at(batch_of([pack], model.device)).log_softmax(-1)
    best = logprobs.topk(min(TOP, logprobs.shape[-1]))
    return Teacher(best.indices.cpu(), best.values.cpu())
