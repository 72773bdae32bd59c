"""Triggers made of triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from langgraph_dynrag.triggers.base import Trigger, verdict_before, verdict_on
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError


class _Combined:
    """Asks every part; parts that look at intervals of their own kind cannot be mixed."""

    _name: str
    _rule: Callable[[Iterable[bool]], bool]

    def __init__(self, *parts: Trigger | Iterable[Trigger]) -> None:
        name = type(self).__name__
        given: tuple[Any, ...] = parts
        # A list of them is as clear as several arguments.
        if len(given) == 1 and isinstance(given[0], Iterable) and not isinstance(given[0], str):
            given = tuple(given[0])
        if foreign := [part for part in given if not isinstance(part, Trigger) or isinstance(part, type)]:
            raise ConfigurationError(
                f"{name} was given {shown(foreign[0])}, which is no trigger; write "
                f"{name}(TokenProbability(), Entropy())"
            )
        if len(given) < 2:
            count = "1 trigger" if given else "no trigger"
            raise ConfigurationError(
                f"{name} was given {count}; it combines two or more: {name}(TokenProbability(), Entropy())"
            )
        self.parts: tuple[Trigger, ...] = given
        # A part that would look only at the whole answer can look after each unit of another one as well.
        units = {part.unit for part in self.parts if part.unit.kind != "all"}
        if len(units) > 1:
            raise ConfigurationError(
                f"{type(self).__name__} cannot combine triggers that look after "
                f"{' and after '.join(sorted(map(str, units)))}"
            )
        self._unit = units.pop() if units else Unit("all")

    @property
    def needs(self) -> frozenset[Signal]:
        """What any part needs."""
        return frozenset().union(*(part.needs for part in self.parts))

    @property
    def unit(self) -> Unit:
        """The parts' common unit."""
        return self._unit

    def before(self, question: str) -> Verdict | None:
        """Combined from the parts' answers; no answer counts as no."""
        return self._combine([verdict_before(part, question) for part in self.parts])

    def judge(self, view: DraftView) -> Verdict:
        """Combined from the parts' verdicts; the earliest position counts."""
        verdict = self._combine([verdict_on(part, view) for part in self.parts])
        return verdict or Verdict(False, "no verdict", trigger=self._name)

    def _combine(self, verdicts: list[Verdict | None]) -> Verdict | None:
        known = [v for v in verdicts if v is not None]
        if not known:
            return None
        retrieve = self._rule([v is not None and v.retrieve for v in verdicts])
        fired = [v for v in known if v.retrieve]
        shown = (fired if retrieve else known)[0]
        if retrieve:  # one without a position speaks of the end of the unit
            shown = min(fired, key=lambda v: float("inf") if v.position is None else v.position)
        return Verdict(
            retrieve,
            f"{self._name}: " + "; ".join(v.reason for v in known),
            shown.scores,
            shown.score,
            shown.threshold,
            shown.position if retrieve else None,
            shown.hits,
            shown.trigger,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"


class AnyOf(_Combined):
    """Retrieves if any of the triggers does: `AnyOf(a, b)`, or `AnyOf([a, b])`.

    Raises:
        ConfigurationError: If there are fewer than two, or they look after different units.
    """

    _name = "any of"
    _rule = staticmethod(any)


class AllOf(_Combined):
    """Retrieves if all of the triggers do: `AllOf(a, b)`, or `AllOf([a, b])`.

    Raises:
        ConfigurationError: If there are fewer than two, or they look after different units.
    """

    _name = "all of"
    _rule = staticmethod(all)
