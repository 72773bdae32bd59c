"""Limits of a run. Reaching one ends retrieval or drafting, never the answer, and is recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Budgets:
    """What one question may cost.

    Raises:
        ConfigurationError: If a limit is out of range.
    """

    retrievals: int = 20
    """Searches, rewrites included. The published methods have no limit, or one that is never reached."""
    tokens: int = 256
    """Tokens of the answer. When they are used up, the short answer is asked for outright."""
    seconds: float = math.inf
    """Working time of the nodes; time spent waiting for a person or a restart does not count."""
    identical_retrievals: int = 3
    """How often a search may bring back nothing but passages that the draft was written with."""
    closing_tokens: int = 24
    """Tokens for the short answer that is asked for outright."""
    reasoning_tokens: int = 2048
    """Tokens that the model may reason with, beside those of the answer."""
    fruitless_replies: int = 2
    """Replies in a row without new text (reasoning alone, a repetition, nothing) after which the model is asked again;
    after one more the run ends with what there is, or with a `NoAnswerError` if that is nothing."""

    def __post_init__(self) -> None:
        for name, least in (("retrievals", 0), ("tokens", 1), ("identical_retrievals", 0), ("closing_tokens", 1),
                            ("reasoning_tokens", 0), ("fruitless_replies", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigurationError(f"budget {name} is {getattr(self, name)}; at least {least} is needed")
        if not self.seconds > 0:
            raise ConfigurationError(f"budget seconds is {self.seconds}; more than 0 is needed")
