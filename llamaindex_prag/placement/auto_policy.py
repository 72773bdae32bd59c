"""Which way a document is used: in context, by an adapter that is trained or translated, or both.

Of the ways that are good enough and quick enough, the cheapest. Training costs once what reading costs again and again,
and nobody knows how often a document will be asked for before it changes. So it is read until reading it has cost what
training it costs, and trained then. Between these two, whatever comes, at most twice is spent of what knowing the
future would have cost (the break-even rule of the ski-rental problem, Karlin et al. 1988). A changed document is a new
text, whose count begins anew; so one that changes often is never trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from llamaindex_prag.placement.costs import Costs, PlacementMode
from rag_backbone.errors import ConfigurationError

QUALITIES: Mapping[PlacementMode, float] = {"context": 1.0, "combined": 1.0, "trained": 0.64}
"""What part of what reading a passage adds to the answers' F1 each way recovers, measured with a model of 0.5 billion
parameters on 452 questions of one hop (docs/results-parametric.md). No translator has been measured: name its own."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known of one document."""

    tokens: int
    asked: int
    """How often it was retrieved since it was last changed, this time not counted."""
    trained: bool = False
    """Whether its adapter is there."""
    represented: bool = False
    """Whether its representation is there."""


@dataclass(frozen=True, slots=True)
class AutoDecision:
    """A way, and why."""

    way: PlacementMode
    why: str


@dataclass(frozen=True)
class AutoPolicy:
    """Picks a way for each document.

    Args:
        quality: The least that a way has to recover, see `QUALITIES`.
        budget: The most seconds that a document may cost at one question, making its adapter included; None: any.
        qualities: What each way recovers with this model; ways that are not named are not taken.
        expected: How often a document is asked for between two changes, if that is known; None: break-even.

    Raises:
        ConfigurationError: If no way is good enough, or a number is out of range.
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
                f"quality is {self.quality}, and the best way has {max(self.qualities.values(), default=0.0)}; lower it"
            )

    def choose(self, demand: Demand, costs: Costs) -> AutoDecision:
        """The way for one document.

        If no way that is good enough fits the budget, the quickest of them is taken.
        """
        good = [way for way in get_args(PlacementMode) if self.qualities.get(way, -math.inf) >= self.quality]
        if costs.translate is None:
            good = [way for way in good if way != "translated"] or ["context"]
        waits = {way: self._once(way, demand, costs) + costs.each(way, demand.tokens) for way in good}
        fit = [way for way in good if self.budget is None or waits[way] <= self.budget]
        if not fit:
            quickest = min(good, key=lambda way: waits[way])
            return AutoDecision(quickest, f"no way fits {self.budget:g} s; this one takes {waits[quickest]:.3g} s")
        best = min(fit, key=lambda way: self._price(way, demand, costs))
        return AutoDecision(best, self._reason(best, demand, costs))

    def _once(self, way: PlacementMode, demand: Demand, costs: Costs) -> float:
        """What has still to be paid before it can be used this way."""
        done = demand.represented if way == "translated" else demand.trained
        return 0.0 if done else costs.once(way, demand.tokens)

    def _price(self, way: PlacementMode, demand: Demand, costs: Costs) -> float:
        """Seconds a question, what is paid once being spread over the questions that are to come.

        As many are taken to come as have been, this one counted: that is the break-even rule.
        """
        questions = self.expected if self.expected is not None else demand.asked + 1
        return self._once(way, demand, costs) / questions + costs.each(way, demand.tokens)

    def _reason(self, way: PlacementMode, demand: Demand, costs: Costs) -> str:
        price = self._price(way, demand, costs)
        return f"{price:.3g} s a question, asked {demand.asked + 1} times, {demand.tokens} tokens"
