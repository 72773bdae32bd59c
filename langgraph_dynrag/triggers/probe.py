"""A linear probe on hidden states: the log-odds that retrieving at a sentence would help.

It reads the mean of the hidden states at the positions that predicted the sentence's tokens, after a share of the
layers: `intercept + sum_i weights_i * state_i`. Training is in `langgraph_dynrag.calibration.probing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from langgraph_dynrag.drafts.draft import Floats
from langgraph_dynrag.triggers.plain_numbers import finite_numbers
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

DEPTHS = (1 / 2, 2 / 3, 1.0)
"""Shares of the layers that a probe is chosen from."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear function of one layer's state; its fields are plain numbers, as they stand in a preset file.

    Raises:
        ConfigurationError: If the depth is not above 0 and at most 1, or a number is not finite.
    """

    depth: float
    """Share of the layers after which the state is read."""
    weights: tuple[float, ...]
    """(width,)."""
    intercept: float

    def __post_init__(self) -> None:
        for name in ("depth", "intercept"):
            object.__setattr__(self, name, finite_numbers([getattr(self, name)], f"{name} of a probe")[0])
        object.__setattr__(self, "weights", finite_numbers(self.weights, "weights of a probe"))
        if not 0 < self.depth <= 1:
            raise ConfigurationError(f"a probe reads at depth {self.depth}; a share of the layers, above 0, is needed")

    @classmethod
    def of(cls, value: Probe | Mapping[str, Any]) -> Probe:
        """Return the probe that a mapping from JSON describes.

        Raises:
            ConfigurationError: If it describes none.
        """
        if isinstance(value, Probe):
            return value
        needed = [f.name for f in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(needed):
            raise ConfigurationError(f"{shown(value)} is no probe; an object with {', '.join(needed)} is needed")
        return cls(**value)

    def log_odds(self, state: Floats) -> float:
        """Return the log-odds at a sentence with this state, (width,).

        Raises:
            ConfigurationError: If the state is of another width, because the probe was trained on another model.
        """
        if state.shape != (len(self.weights),):
            raise ConfigurationError(
                f"the model's hidden states have {state.shape[-1]} numbers and the probe {len(self.weights)} weights; "
                "it was trained on another model: calibrate the trigger on this one"
            )
        return self.intercept + float(np.dot(np.asarray(self.weights), state.astype(np.float64)))

    def __repr__(self) -> str:
        return f"Probe(depth={self.depth:g}, width={len(self.weights)})"
