"""Continuations that are sampled to judge a draft or an answer: sampling parameters and results.

Pure: NumPy and plain data. The samples come from a generator that provides the signal `end_states`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, check_fields

StateOf = Literal["layer", "mlp"]
EndOf = Literal["sentence", "answer"]


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """Parameters for sampling continuations. The defaults are those of SeaKR's published code (Yao et al. 2024).

    Raises:
        ConfigurationError: If a value is out of range.
    """

    samples: Annotated[int, Bounds(least=1)] = 20
    max_tokens: Annotated[int, Bounds(least=1)] = 100
    """Maximum length of a sample, which may end earlier; see `until`."""
    temperature: float = 1.0
    top_k: Annotated[int, Bounds(least=0, what="0 (keep all) or more")] = 50
    top_p: Annotated[float, Bounds(above=0, most=1)] = 0.9
    layer: Annotated[float, Bounds(least=0, below=1, what="a fraction of the depth, from 0 to below 1,")] = 15 / 32
    """The layer whose output is read, as a fraction of the depth. Published: the 15th of 32, counted from 0."""
    state: StateOf = "layer"
    """`"layer"`: the hidden state after the layer, as in the paper. `"mlp"`: what the layer's feed-forward block adds
    to it, as in the published code."""
    until: EndOf = "sentence"
    """End of a sample: its sentence, or the short answer that the prompt asks for."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.temperature > 0:
            raise ConfigurationError(
                f"temperature is {self.temperature}; it must be positive, otherwise all samples are the same text"
            )

    def layer_of(self, layers: int) -> int:
        """Return the index of the layer in a model with `layers` layers."""
        # Rounded first, because 15 / 32 * 32 must not become 14.
        return int(round(self.layer * layers, 6))


@dataclass(frozen=True)
class SampledEnds:
    """Samples, the hidden state at the end-of-sequence position of each, and their cost."""

    states: NDArray[np.floating[Any]]
    """Hidden states, (samples, width)."""
    texts: tuple[str, ...]
    cost: Mapping[str, float] = field(default_factory=dict)
    """`sequences`, `tokens` (sampled), `forward_tokens`, `cached_tokens` and `seconds`."""


SampleEnds = Callable[[SampleSpec], SampledEnds]
"""Function that samples continuations of the accepted text."""
