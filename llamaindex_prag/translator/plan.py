"""How a translator is trained: sizes, rates and when to judge. Plain data that a checkpoint keeps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Settings of a translator's training."""

    steps: int = 2000
    documents: int = 8
    """In a step."""
    questions: int = 8
    """About each of them, drawn anew each time it comes."""
    phrases: int = 64
    """Questions by rule that a passage has to draw from."""
    unrelated: int = 1
    """Questions of other subjects beside them, which the model is to answer as it did."""
    learning_rate: float = 1e-3
    warm_up: int = 50
    """Steps over which the rate rises; after them it falls to nothing as a cosine."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """The largest norm of a step's gradient."""
    validate_every: int = 200
    validation_questions: int = 4
    """About each passage that is set apart."""
    patience: int = 0
    """Validations in a row without a better one after which training ends; 0: it never ends early."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "documents", "questions", "phrases", "validate_every", "validation_questions"):
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} is {value}; at least 1 is needed")
        for name in ("learning_rate", "clip"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0")
        for name in ("unrelated", "warm_up", "weight_decay", "patience"):
            if (value := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} is {value}; it cannot be negative")

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / (self.warm_up + 1)
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
