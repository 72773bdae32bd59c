"""How good a translator is on passages that it was not trained on.

The loss on their questions, asked without the passage (nats a token of the answer), with

- `own`: the passage's translated adapter;
- `other`: another passage's: what it gains is the form of an answer;
- `mean`: the mean of all their adapters' values: what is the same for every document;
- `base`: none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llamaindex_prag.adapter import text_hash
from llamaindex_prag.training.examples import TrainingDocument
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.training.teaching import distilled
from llamaindex_prag.translator.lessons import Lesson, questions_of
from llamaindex_prag.translator.plan import TrainingPlan
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from llamaindex_prag.translator.translator import Translator


@dataclass(frozen=True, slots=True)
class Judgement:
    """Mean losses over the passages, nats a token; the lower, the better."""

    own: float
    other: float
    mean: float
    base: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Validation:
    """Judges a translator on fixed passages with fixed questions.

    Args:
        translator: Which.
        losses: Of its model and layout.
        lessons: The passages that were set apart.
        plan: How many questions.
    """

    def __init__(
        self, translator: Translator, losses: DocumentLosses, lessons: Sequence[Lesson], plan: TrainingPlan
    ) -> None:
        self._translator = translator
        self._losses = losses
        self._documents = _documents(translator, lessons, plan)
        if len(self._documents) < 2:
            raise ConfigurationError(
                f"{len(self._documents)} of {len(lessons)} passages set apart for validation have questions; at least "
                "2 are needed. Give passages that say something, or set more apart."
            )
        self._base: list[float] | None = None

    def judge(self) -> Judgement:
        """The translator as it is now."""
        own, other, mean, base = (np.mean(found) for found in self.losses())
        return Judgement(float(own), float(other), float(mean), float(base))

    @torch.no_grad()
    def losses(self) -> tuple[list[float], list[float], list[float], list[float]]:
        """Of each passage: own, other, mean, base."""
        texts = [d.text for d in self._documents]
        translator = self._translator
        pooled = translator.network.pool(translator.reader.states(texts))
        values = torch.cat([translator.network.generate(part) for part in pooled.split(8)])
        if self._base is None:
            self._base = self._with(torch.zeros_like(values[:1]).expand_as(values))
        return (
            self._with(values), self._with(values.roll(1, 0)),
            self._with(values.mean(0, keepdim=True).expand_as(values)), self._base,
        )  # fmt: skip

    def _with(self, values: Tensor) -> list[float]:
        found: list[float] = []
        engine, config = self._translator.lm.engine, self._translator.config
        for i in range(0, len(self._documents), 8):
            part = self._documents[i : i + 8]
            with engine.borrowed() as model:
                factors = DocumentFactors(model, config.layout, values[i : i + 8], len(part), config.scale)
            losses = self._losses.values(factors, {n: d.examples for n, d in enumerate(part)})
            found += [losses[n] for n in range(len(part))]
        return found


def _documents(translator: Translator, lessons: Sequence[Lesson], plan: TrainingPlan) -> list[TrainingDocument]:
    recipe = translator.config.recipe.changed(objective="distill", unrelated=0, with_passage=0, questions=1)
    asked = []
    for lesson in lessons:
        rng = random.Random(f"validation/{plan.seed}/{text_hash(lesson.text)}")  # noqa: S311
        questions = questions_of(lesson, plan.phrases)
        asked.append((lesson.text, rng.sample(questions, min(plan.validation_questions, len(questions)))))
    return [d for d in distilled(translator.lm.engine, recipe, asked) if d.examples]
