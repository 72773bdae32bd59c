"""Measures a translator's quality on passages that it was not trained on.

Measures the loss on the passages' questions, asked without the passage (in nats per answer token), with

- `own`: the passage's translated adapter;
- `other`: another passage's adapter, which helps only with the form of an answer;
- `mean`: the mean of all adapters' values, which is the part common to all documents;
- `base`: no adapter;

and `f1`, the word overlap between known answers and answers with the passage's own adapter (SQuAD's F1).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.training.answering import answers
from llamaindex_prag.translator.training.base_states import BaseStates
from llamaindex_prag.translator.training.corpus import KNOWN, Lesson, questions_of, taught_lessons
from llamaindex_prag.translator.training.plan import TrainingPlan
from rag_backbone.errors import ConfigurationError
from rag_backbone.metrics import exact_match, f1

if TYPE_CHECKING:
    from torch import Tensor

    from llamaindex_prag.translator.translator import Translator


@dataclass(frozen=True, slots=True)
class ValidationLosses:
    """Mean losses over the passages, in nats per token; lower is better."""

    own: float
    other: float
    mean: float
    base: float
    f1: float | None = None
    """Mean F1 between 0 and 1; None if no question has a known answer."""

    def to_dict(self) -> dict[str, Any]:
        """Return the losses as plain data."""
        return asdict(self)


class Validation:
    """Evaluates a translator on fixed passages with fixed questions.

    Args:
        translator: The translator.
        losses: Losses for the translator's model and layout.
        lessons: The validation passages.
        plan: Sets the number of questions and the seed.
        states: The base model's states of passages and questions; None to compute them each time.

    Raises:
        ConfigurationError: If fewer than two passages have questions.
    """

    def __init__(
        self,
        translator: Translator,
        losses: DocumentLosses,
        lessons: Sequence[Lesson],
        plan: TrainingPlan,
        states: BaseStates | None = None,
    ) -> None:
        self._translator = translator
        self._losses = losses
        self._states = states or BaseStates(translator, losses, None)
        asked = [(lesson.text, _questions(lesson, plan)) for lesson in lessons]
        told = zip(taught_lessons(translator, asked), asked, strict=True)
        kept = [(document, questions) for document, (_, questions) in told if document.examples]
        self._documents = [document for document, _ in kept]
        known = {i: next((qa for qa in questions if qa.source in KNOWN), None) for i, (_, questions) in enumerate(kept)}
        self._known = {i: qa for i, qa in known.items() if qa is not None}
        if len(self._documents) < 2:
            raise ConfigurationError(
                f"{len(self._documents)} of {len(lessons)} passages set apart for validation have questions; at least "
                "2 are needed. Give passages with more content, or set more apart."
            )
        self._base: list[float] | None = None

    def __len__(self) -> int:
        return len(self._documents)

    def judge(self) -> ValidationLosses:
        """Evaluate the translator in its current state."""
        own, other, mean, base = (np.mean(found) for found in self.losses())
        return ValidationLosses(float(own), float(other), float(mean), float(base), self.f1())

    def f1(self) -> float | None:
        """Return the mean F1 with the passages' own adapters, one question each; None if no answer is known."""
        if not self._known:
            return None
        said = self._said(self._values())
        found = [f1(answer, [qa.answer]) for answer, qa in zip(said, self._known.values(), strict=True)]
        return float(np.mean(found))

    def matches(self) -> tuple[list[float], list[float], list[float]]:
        """Return 1 for each known answer that is given exactly, else 0, with `own`, `other` and `mean` adapters."""
        right = [qa.answer for qa in self._known.values()]
        own, other, mean = (
            [exact_match(answer, [known]) for answer, known in zip(self._said(values), right, strict=True)]
            for values in _compared(self._values())
        )
        return own, other, mean

    def _said(self, values: Tensor) -> list[str]:
        """Return the answers to the questions whose answer is known, with these adapters."""
        engine, config = self._translator.lm.engine, self._translator.config
        asked = [(i, prompt_ids(engine.tokenizer, qa.question)) for i, qa in self._known.items()]
        factors = engine.run(DocumentFactors, engine.model, config.layout, values, len(values), config.scale)
        return answers(engine, factors, asked)

    @torch.no_grad()
    def losses(self) -> tuple[list[float], list[float], list[float], list[float]]:
        """Return the `own`, `other`, `mean` and `base` losses of each passage."""
        values = self._values()
        if self._base is None:
            self._base = self._with(torch.zeros_like(values[:1]).expand_as(values))
        own, other, mean = map(self._with, _compared(values))
        return own, other, mean, self._base

    @torch.no_grad()
    def _values(self) -> Tensor:
        """Return the (passages, layout.size) values of the translated adapters."""
        network = self._translator.network
        pooled = network.pool(self._states.of_passages([d.text for d in self._documents]))
        return torch.cat([network.generate(part) for part in pooled.split(8)])

    def _with(self, values: Tensor) -> list[float]:
        found: list[float] = []
        engine, config = self._translator.lm.engine, self._translator.config
        for i in range(0, len(self._documents), 8):
            part = self._documents[i : i + 8]
            factors = engine.run(
                DocumentFactors, engine.model, config.layout, values[i : i + 8], len(part), config.scale
            )
            active = {n: d.examples for n, d in enumerate(part)}
            losses = self._losses.values(factors, active, self._states.below(active))
            found += [losses[n] for n in range(len(part))]
        return found


def _compared(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `own`, `other` and `mean` adapter of each document, from the (documents, layout.size) own ones."""
    return values, values.roll(1, 0), values.mean(0, keepdim=True).expand_as(values)


def _questions(lesson: Lesson, plan: TrainingPlan) -> list[QA]:
    rng = random.Random(f"validation/{plan.seed}/{text_hash(lesson.text)}")  # noqa: S311
    questions = questions_of(lesson, plan.phrases)
    return rng.sample(questions, min(plan.validation_questions, len(questions)))
