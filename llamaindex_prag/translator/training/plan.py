"""Settings of a translator's training, as plain data that a checkpoint records."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

from rag_backbone.errors import ConfigurationError

TranslatorObjective = Literal["distill", "imitate"]
Sequences = Literal["drawn", "first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Settings of a translator's training."""

    objective: TranslatorObjective = "distill"
    """`"distill"` learns from the effect of its adapters on the model's answers; `"imitate"` is DyPRAG's objective, see
    `imitation`."""
    steps: int = 2000
    documents: int = 8
    """Documents per step."""
    questions: int = 8
    """Questions per document, sampled again each time the document is used."""
    phrases: int = 64
    """Rule-based questions per passage to sample from, in addition to given ones; 0 for only given ones."""
    unrelated: int = 1
    """Additional questions on unrelated subjects, whose answers should not change."""
    learning_rate: float = 1e-3
    direct: float = 2.0
    """Factor on the learning rate of parameters that are adapter values themselves (`SharedNetwork.direct`)."""
    warm_up: int = 50
    """Steps over which the learning rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: falls to 0, or stays constant."""
    weight_decay: float = 0.01
    epsilon: float = 1e-6
    """Epsilon of AdamW."""
    clip: float = 1.0
    """Maximum gradient norm of a step; 0 for no limit."""
    kl: float = 0.01
    """Weight of the divergence from the trained adapter (`imitate`)."""
    mse: float = 0.0
    """Weight of the squared distance from the trained adapter's values; DyPRAG uses 100. A value above 0 adds this
    target to `distill`."""
    sequences: Sequences = "drawn"
    """Which of a document's PRAG sequences are used (`imitate`)."""
    validate_every: int = 200
    """Steps between two validations."""
    validation_questions: int = 4
    """Questions per validation passage."""
    patience: int = 0
    """Number of consecutive validations without improvement after which training ends; 0 to never end early."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "documents", "questions", "validate_every", "validation_questions"):
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} is {value}; at least 1 is needed")
        for name in ("learning_rate", "epsilon", "direct"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0")
        for name, known in (("objective", TranslatorObjective), ("sequences", Sequences)):
            if (value := getattr(self, name)) not in get_args(known):
                raise ConfigurationError(f"{name} is {value!r}; known: {', '.join(get_args(known))}")
        if self.schedule not in ("cosine", "constant"):
            raise ConfigurationError(f"schedule is {self.schedule!r}; known: cosine, constant")
        for name in ("phrases", "unrelated", "warm_up", "weight_decay", "patience", "clip", "kl", "mse"):
            if (value := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} is {value}; it cannot be negative")

    @classmethod
    def of(cls, kind: str) -> Self:
        """Return the plan for end-to-end training of a network of this kind.

        DyPRAG's weights start at 1e-7 on both sides of `B A`, so its first gradients are smaller than any usual
        epsilon.
        """
        return cls(epsilon=1e-20) if kind == "dyprag" else cls()

    @property
    def needs_adapters(self) -> bool:
        """Whether trained adapters are a target."""
        return self.objective == "imitate" or self.mse > 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / (self.warm_up + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def changed(self, **changes: Any) -> TrainingPlan:
        """Return a copy of this plan with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


DYPRAG = TrainingPlan(
    objective="imitate",
    steps=4800,
    documents=1,
    unrelated=0,
    learning_rate=1e-5,
    warm_up=0,
    schedule="constant",
    weight_decay=0.01,
    epsilon=1e-8,
    clip=0.0,
    mse=100.0,
    sequences="first",
)
"""DyPRAG as released: one pass over 4,800 passages, one per step. `changed(sequences="drawn")` adds closed-book
sequences."""
