"""The `Trigger` protocol, a base class, and checks: a trigger decides *when* to retrieve."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Protocol, get_args, runtime_checkable

from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@runtime_checkable
class Trigger(Protocol):
    """Judges each complete unit of a draft and decides whether information is needed there.

    A trigger is a pure function of the view: the same draft gives the same verdict.
    """

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the trigger reads. A generator that lacks one is refused when the graph is built."""

    @property
    def unit(self) -> Unit:
        """Piece of text that the trigger judges at a time."""

    def before(self, question: str) -> Verdict | None:
        """Decide, once and before anything is generated, whether to retrieve first; None counts as no."""

    def judge(self, view: DraftView) -> Verdict:
        """Return the verdict on the judged tokens of the view."""


class BaseTrigger:
    """Base class for triggers; by default they judge each sentence, read no signals, and let the model write first.

    Subclasses override what differs; `needs` and `unit` may be class attributes or properties. Fields of dataclasses
    are checked against their annotations.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the trigger reads; none by default."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """Unit that the trigger judges; a sentence by default."""
        return Unit("sentence")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Return None, so that the model writes first."""
        return None


def check_trigger(trigger: Trigger) -> None:
    """Refuse a trigger whose `unit` or `needs` has the wrong type.

    Raises:
        ConfigurationError: If one has; the message says what is needed.
    """
    unit: object = trigger.unit
    if not isinstance(unit, Unit):
        advice = f"Unit({unit!r})" if isinstance(unit, str) else 'Unit("sentence")'
        raise ConfigurationError(f"the unit of {trigger!r} is {shown(unit)}; a Unit is needed, such as {advice}")
    check_needs(trigger)


def check_needs(part: Any) -> None:
    """Refuse a trigger or query formulator whose `needs` is not a set of signals.

    Raises:
        ConfigurationError: If it is not; the message lists the known signals.
    """
    known = get_args(Signal)
    needs: object = part.needs
    if not isinstance(needs, Set) or not all(isinstance(name, str) for name in needs):
        raise ConfigurationError(
            f"the needs of {part!r} are {shown(needs)}; a frozenset of signals is needed; known: {', '.join(known)}"
        )


def verdict_on(trigger: Trigger, view: DraftView) -> Verdict:
    """Return the trigger's verdict.

    Raises:
        ConfigurationError: If it returns anything but a `Verdict`.
    """
    return _checked(trigger, "judge", trigger.judge(view))


def verdict_before(trigger: Trigger, question: str) -> Verdict | None:
    """Return the trigger's verdict before anything is generated.

    Raises:
        ConfigurationError: If it returns neither a `Verdict` nor None.
    """
    returned = trigger.before(question)
    return None if returned is None else _checked(trigger, "before", returned)


def _checked(trigger: Trigger, method: str, returned: object) -> Verdict:
    if not isinstance(returned, Verdict):
        shape = f"Verdict({returned!r}, 'the reason')" if isinstance(returned, bool) else "Verdict(False, 'the reason')"
        raise ConfigurationError(
            f"{trigger!r}: {method}() returned {shown(returned)}; a Verdict is needed, such as {shape}"
        )
    return returned
