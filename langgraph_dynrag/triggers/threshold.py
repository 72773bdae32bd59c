"""Read the threshold of a trigger, and copy a trigger with another threshold.

This works for triggers that have a dataclass field `threshold` (or `theta`, as FLARE calls it), or a method
`with_threshold(value)` and a property `threshold`. The threshold is compared with the `score` and `scores` of the
trigger's verdict.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

from langgraph_dynrag.triggers.base import Trigger
from rag_backbone.errors import ConfigurationError

_NAMES = ("threshold", "theta")


@runtime_checkable
class HasThreshold(Protocol):
    """A trigger that copies itself with another threshold."""

    @property
    def threshold(self) -> float:
        """Threshold that scores are compared with."""

    def with_threshold(self, value: float) -> Trigger:
        """Return a copy of this trigger with another threshold."""


def threshold_of(trigger: Trigger) -> float | None:
    """Return a trigger's threshold; None if it has none."""
    if isinstance(trigger, HasThreshold):
        return float(trigger.threshold)
    name = _field(trigger)
    return None if name is None else float(getattr(trigger, name))


def with_threshold(trigger: Trigger, value: float) -> Trigger:
    """Return a copy of a trigger with another threshold.

    Raises:
        ConfigurationError: If the trigger has no threshold, or does not accept the value.
    """
    if isinstance(trigger, HasThreshold):
        return trigger.with_threshold(value)
    name = _field(trigger)
    if name is None:
        hint = "; its parts may have one" if hasattr(trigger, "parts") else ""
        raise ConfigurationError(
            f"{trigger!r} has no threshold{hint}; TokenProbability, Entropy, RIND and ETC have one"
        )
    own: Any = trigger
    changed: Trigger = replace(own, **{name: value})
    return changed


def _field(trigger: object) -> str | None:
    if not is_dataclass(trigger):
        return None
    return next((f.name for f in fields(trigger) if f.name in _NAMES), None)
