"""The health check of a translator: does an unseen needle's adapter answer the question about its own needle?

A translator can lower its loss on any corpus by learning the form of answers, and then shows nothing of a passage. On
needles (`needles`) that cannot happen unnoticed: with the adapter of another document, or the mean of all adapters,
their codes cannot be known. `check` compares the three, and `TranslatorTrainer` trains on prose only if they differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from llamaindex_prag.translator.training.needles import MOST
from llamaindex_prag.translator.training.validation import Validation
from rag_backbone.errors import ConfigurationError

_FEWEST = 16
"""Minimum number of unseen needles; with fewer, the intervals of right and wrong adapters hardly separate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Settings of a translator's health check: what it is trained on beforehand, and what it has to reach."""

    steps: int = 1000
    """Number of training steps on needles."""
    documents: int = 16
    """Needles per step."""
    train: int = 2048
    """Number of needles to train on."""
    unseen: int = 64
    """Number of other needles for the check."""
    exact_match: float = 0.5
    """Smallest fraction of unseen needles that must be answered exactly with their own adapters."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("documents", 1), ("train", 1), ("unseen", _FEWEST)):
            if (value := getattr(self, name)) < least:
                raise ConfigurationError(f"{name} of a health check is {value}; at least {least} is needed")
        if self.train + self.unseen > MOST:
            raise ConfigurationError(f"{self.train} + {self.unseen} needles were asked for; there are {MOST}")
        if not 0 < self.exact_match <= 1:
            raise ConfigurationError(f"exact_match is {self.exact_match}; it must be above 0 and at most 1")


HEALTH_CHECK = HealthCheck()
"""The check that a training has to pass unless it is given another one, or None."""


@dataclass(frozen=True, slots=True)
class NeedleScore:
    """What the questions about unseen needles are answered with one kind of adapter."""

    exact_match: float
    """Fraction of exact answers."""
    low: float
    high: float
    """95 % interval of `exact_match` (Wilson 1927, without continuity correction)."""
    loss: float
    """Mean loss of the right answers in nats per token."""

    @classmethod
    def of(cls, matches: Sequence[float], losses: Sequence[float]) -> NeedleScore:
        """Summarise one match (0 or 1) and one loss per needle."""
        return cls(fmean(matches), *wilson(sum(matches), len(matches)), fmean(losses))

    def __str__(self) -> str:
        return f"{self.exact_match:.2f} [{self.low:.2f}, {self.high:.2f}] exact, {self.loss:.3f} nats per token"


@dataclass(frozen=True, slots=True)
class Health:
    """Result of a health check."""

    needles: int
    """Number of unseen needles."""
    own: NeedleScore
    """With the needle's own adapter."""
    other: NeedleScore
    """With the adapter of another needle."""
    mean: NeedleScore
    """With the mean of all adapters."""
    required: float
    """Smallest exact match with the own adapter."""

    @property
    def passed(self) -> bool:
        """Whether own adapters reach `required`, and their lower bound is above the upper bounds of both others."""
        return self.own.exact_match >= self.required and self.own.low > max(self.other.high, self.mean.high)

    @property
    def why(self) -> str:
        """One sentence that states the figures and what follows from them."""
        if self.passed:
            shown = "so the adapters carry what their documents say"
        elif self.own.low > max(self.other.high, self.mean.high):
            shown = f"so the adapters carry something of their documents, but less than the required {self.required:g}"
        else:
            shown = "so nothing shows that an adapter carries what its document says"
        scores = f"own adapter {self.own}; another's {self.other}; mean of all {self.mean}"
        return f"On {self.needles} unseen needles: {scores}; {shown}."

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the verdict as plain data."""
        return asdict(self) | {"passed": self.passed, "why": self.why}


def check(needles: Validation, required: float) -> Health:
    """Evaluate a translator on unseen needles.

    Args:
        needles: The needles with the translator in its current state.
        required: Smallest exact match with the own adapter.
    """
    own, other, mean = map(NeedleScore.of, needles.matches(), needles.losses()[:3])
    return Health(len(needles), own, other, mean, required)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) (Wilson 1927)."""
    z, p = 1.959964, successes / trials
    centre, width = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return max(0.0, (centre - width) / whole), min(1.0, (centre + width) / whole)
