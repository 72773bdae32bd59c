"""Chooses a document's placement mode: in context, through a trained or translated adapter, or both.

The policy takes the cheapest of the modes that are good enough and fast enough. Training is paid once, reading at every
question, and it is unknown how often a document will be retrieved before it changes. So the document is read until
reading it has cost as much as training it would, and is then trained. This costs at most twice as much as the better of
the two with knowledge of the future (the break-even rule of the ski-rental problem, Karlin et al. 1988). A changed
document is a new text whose count starts at 0, so a document that changes often is never trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from llamaindex_prag.placement.costs import Costs, PlacementMode
from rag_backbone.errors import ConfigurationError

QUALITIES: Mapping[PlacementMode, float] = {"context": 1.0, "combined": 1.0, "trained": 0.64}
"""Fraction of the F1 gain from reading a passage that each mode recovers, measured with a 0.5B model on 452 single-hop
questions (docs/results-parametric.md). No translator has been measured; to use `translated`, pass its value."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known about one document."""

    tokens: int
    """Number of tokens in the document."""
    asked: int
    """Number of earlier retrievals since its last change."""
    trained: bool = False
    """Whether its trained adapter exists."""
    represented: bool = False
    """Whether its representation is stored."""


@dataclass(frozen=True, slots=True)
class AutoDecision:
    """A placement mode, and the reason for it."""

    way: PlacementMode
    why: str


@dataclass(frozen=True)
class AutoPolicy:
    """Chooses a placement mode for each document.

    Args:
        quality: Minimum quality of a mode, see `QUALITIES`.
        budget: Maximum number of seconds that a document may cost at one question, including making its adapter; None
            for no limit.
        qualities: Quality of each mode with this model; modes without an entry are not used.
        expected: Expected number of retrievals of a document between two changes; None to use the break-even rule.

    Raises:
        ConfigurationError: If no mode is good enough, or a number is out of range.
    """

    quality: float = 0.0
    budget: float | None = None
    qualities: Mapping[PlacementMode, float] = field(default_factory=lambda: dict(QUALITIES))
    expected: float | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.qualities) - set(get_args(PlacementMode))):
            raise ConfigurationError(
                f"qualities names {', '.join(unknown)}; known: {', '.join(get_args(PlacementMode))}"
            )
        for name in ("budget", "expected"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} is {value}; it must be a finite number above 0, or None")
        if not any(value >= self.quality for value in self.qualities.values()):
            raise ConfigurationError(
                f"quality is {self.quality}, but the best mode has {max(self.qualities.values(), default=0.0)}; "
                "lower it"
            )

    def choose(self, demand: Demand, costs: Costs) -> AutoDecision:
        """Choose the mode for one document.

        If none of the modes that are good enough fits the budget, the fastest of them is chosen.
        """
        good = [way for way in get_args(PlacementMode) if self.qualities.get(way, -math.inf) >= self.quality]
        if costs.translate is None:
            good = [way for way in good if way != "translated"] or ["context"]
        waits = {way: self._once(way, demand, costs) + costs.each(way, demand.tokens) for way in good}
        fit = [way for way in good if self.budget is None or waits[way] <= self.budget]
        if not fit:
            quickest = min(good, key=lambda way: waits[way])
            return AutoDecision(quickest, f"no mode fits {self.budget:g} s; this one takes {waits[quickest]:.3g} s")
        best = min(fit, key=lambda way: self._price(way, demand, costs))
        return AutoDecision(best, self._reason(best, demand, costs))

    def _once(self, way: PlacementMode, demand: Demand, costs: Costs) -> float:
        """Return the seconds that are still needed before the document can be used in this mode."""
        done = demand.represented if way == "translated" else demand.trained
        return 0.0 if done else costs.once(way, demand.tokens)

    def _price(self, way: PlacementMode, demand: Demand, costs: Costs) -> float:
        """Return the seconds per question, with one-off costs spread over the expected questions.

        Without `expected`, as many questions are assumed to follow as there were up to now, including this one: the
        break-even rule.
        """
        questions = self.expected if self.expected is not None else demand.asked + 1
        return self._once(way, demand, costs) / questions + costs.each(way, demand.tokens)

    def _reason(self, way: PlacementMode, demand: Demand, costs: Costs) -> str:
        price = self._price(way, demand, costs)
        return f"{price:.3g} s a question, asked {demand.asked + 1} times, {demand.tokens} tokens"
