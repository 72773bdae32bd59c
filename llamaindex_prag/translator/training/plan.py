"""How a translator is trained: sizes, rates and when to judge. Plain data that a checkpoint keeps."""

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
    """`"distill"`: what its adapters do to the model's answers. `"imitate"`: DyPRAG's; see `imitation`."""
    steps: int = 2000
    documents: int = 8
    """In a step."""
    questions: int = 8
    """About each of them, drawn anew each time it comes."""
    phrases: int = 64
    """Questions by rule that a passage has to draw from, beside those that came with it; 0: only those."""
    unrelated: int = 1
    """Questions of other subjects beside them, which the model is to answer as it did."""
    learning_rate: float = 1e-3
    direct: float = 2.0
    """Times the learning rate, for parameters that are values of adapters themselves (`SharedNetwork.direct`)."""
    warm_up: int = 50
    """Steps over which the rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the rate after them: it falls to nothing, or stays."""
    weight_decay: float = 0.01
    epsilon: float = 1e-6
    """Of AdamW."""
    clip: float = 1.0
    """The largest norm of a step's gradient; 0: any."""
    kl: float = 0.01
    """Of the divergence from the trained adapter (`imitate`)."""
    mse: float = 0.0
    """Of the distance from the trained adapter's values: DyPRAG has 100. A further target of `distill`, if above 0."""
    sequences: Sequences = "drawn"
    """Which of a document's PRAG sequences are seen (`imitate`)."""
    validate_every: int = 200
    validation_questions: int = 4
    """About each passage that is set apart."""
    patience: int = 0
    """Validations in a row without a better one after which training ends; 0: it never ends early."""
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
        """For end-to-end training of a network of that kind.

        DyPRAG's starts at 1e-7 on both sides of `B A`, so that its first gradients are smaller than any usual epsilon.
        """
        return cls(epsilon=1e-20) if kind == "dyprag" else cls()

    @property
    def needs_adapters(self) -> bool:
        """Whether trained adapters are among the targets."""
        return self.objective == "imitate" or self.mse > 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / (self.warm_up + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def changed(self, **changes: Any) -> TrainingPlan:
        """This plan with some values exchanged."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
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
"""As released: one pass over 4,800 passages, one a step. `changed(sequences="drawn")` lets it see closed-book ones."""
