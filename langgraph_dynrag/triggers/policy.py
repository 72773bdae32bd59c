"""Policies over a probability: what a threshold of a learned trigger was chosen for.

`langgraph_dynrag.calibration.bounds` chooses the threshold; a policy states the goal in a preset file and in traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, Probability, check_fields


@dataclass(frozen=True, slots=True)
class Policy:
    """The goal that a threshold was chosen for.

    Args:
        goal: A retrieval `"rate"`, or a bound: on the needed retrievals that are `"missed"`, or on the right sentences
            whose answers are `"given_up"`.
        value: The wanted share of the sentences, or the share that may be missed or given up.
        confidence: Confidence of the bound; None for a rate.
        points: Number of sentences that the threshold rests on.

    Raises:
        ConfigurationError: If a value is out of range, or a bound has no confidence.
    """

    goal: Literal["rate", "missed", "given_up"]
    value: Probability
    confidence: Annotated[float, Bounds(above=0, below=1)] | None = None
    points: Annotated[int, Bounds(least=0)] = 0

    def __post_init__(self) -> None:
        check_fields(self, "the policy's ")
        if (self.confidence is None) is not (self.goal == "rate"):
            raise ConfigurationError(f"the policy's confidence is {self.confidence}; a bound has one, a rate has none")

    @classmethod
    def of(cls, value: Any) -> Policy:
        """Return the policy that a mapping from JSON describes.

        Raises:
            ConfigurationError: If it describes none.
        """
        if isinstance(value, Policy):
            return value
        if not isinstance(value, Mapping) or not {"goal", "value"} <= set(value) <= set(cls.__dataclass_fields__):
            raise ConfigurationError(f"{shown(value)} is no policy; an object with goal and value is needed")
        return cls(**value)

    def __str__(self) -> str:
        if self.goal == "rate":
            return f"searches at {self.value:.0%} of the sentences"
        lost = "misses {} of the needed retrievals" if self.goal == "missed" else "gives {} of the right sentences up"
        return f"{lost.format(f'at most {self.value:.0%}')}, at {self.confidence:.0%} confidence"
