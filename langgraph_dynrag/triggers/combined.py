"""Triggers that combine other triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from langgraph_dynrag.triggers.base import Trigger, verdict_before, verdict_on
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError


class _Combined:
    """Asks every part; parts with different units cannot be combined."""

    _name: str
    _rule: Callable[[Iterable[bool]], bool]

    def __init__(self, *parts: Trigger | Iterable[Trigger]) -> None:
        name = type(self).__name__
        given: tuple[Any, ...] = parts
        # A single list is accepted instead of several arguments.
        if len(given) == 1 and isinstance(given[0], Iterable) and not isinstance(given[0], str):
            given = tuple(given[0])
        if foreign := [part for part in given if not isinstance(part, Trigger) or isinstance(part, type)]:
            raise ConfigurationError(
                f"{name} was given {shown(foreign[0])}, which is not a trigger; write "
                f"{name}(TokenProbability(), Entropy())"
            )
        if len(given) < 2:
            count = "1 trigger" if given else "no trigger"
            raise ConfigurationError(
                f"{name} was given {count}; it combines two or more: {name}(TokenProbability(), Entropy())"
            )
        self.parts: tuple[Trigger, ...] = given
        # A part that judges the whole answer can also judge each unit of another part.
        units = {part.unit for part in self.parts if part.unit.kind != "all"}
        if len(units) > 1:
            raise ConfigurationError(
                f"{type(self).__name__} cannot combine triggers that judge the draft after "
                f"{' and after '.join(sorted(map(str, units)))}"
            )
        self._unit = units.pop() if units else Unit("all")

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that any part needs."""
        return frozenset().union(*(part.needs for part in self.parts))

    @property
    def unit(self) -> Unit:
        """Common unit of the parts."""
        return self._unit

    def before(self, question: str) -> Verdict | None:
        """Combine the parts' verdicts before generation; None counts as no."""
        return self._combine([verdict_before(part, question) for part in self.parts])

    def judge(self, view: DraftView) -> Verdict:
        """Combine the parts' verdicts; the earliest position counts."""
        verdict = self._combine([verdict_on(part, view) for part in self.parts])
        return verdict or Verdict(False, "no verdict", trigger=self._name)

    def _combine(self, verdicts: list[Verdict | None]) -> Verdict | None:
        known = [v for v in verdicts if v is not None]
        if not known:
            return None
        retrieve = self._rule([v is not None and v.retrieve for v in verdicts])
        # A part that gives the answer up has found a gap as well as one that searches.
        gap = self._rule([v is not None and (v.retrieve or v.answer is not None) for v in verdicts])
        fired = [v for v in known if v.retrieve]
        shown = (fired if retrieve else known)[0]
        if retrieve:  # a verdict without a position refers to the end of the unit
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
            ends=any(v.ends for v in known),  # like `answer`, it only takes effect if nothing is retrieved
            answer=next((v.answer for v in known if v.answer is not None), None) if gap else None,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"


class AnyOf(_Combined):
    """Retrieves if any of the triggers does: `AnyOf(a, b)` or `AnyOf([a, b])`.

    Raises:
        ConfigurationError: If there are fewer than two triggers, or their units differ.
    """

    _name = "any of"
    _rule = staticmethod(any)


class AllOf(_Combined):
    """Retrieves if all of the triggers do: `AllOf(a, b)` or `AllOf([a, b])`.

    Raises:
        ConfigurationError: If there are fewer than two triggers, or their units differ.
    """

    _name = "all of"
    _rule = staticmethod(all)
