"""What a trigger is: it decides *when* to retrieve."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Protocol, get_args, runtime_checkable

from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@runtime_checkable
class Trigger(Protocol):
    """Looks at each finished unit of a draft and says whether information is needed there.

    A trigger is a pure function of the view: the same draft gives the same verdict.
    """

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads. A generator that lacks one is refused when the graph is built."""
        ...

    @property
    def unit(self) -> Unit:
        """After which piece of text it wants to look."""
        ...

    def before(self, question: str) -> Verdict | None:
        """Asked once, before anything is written. None or a negative verdict: write first."""
        ...

    def judge(self, view: DraftView) -> Verdict:
        """The verdict on the judged tokens of the view."""
        ...


class BaseTrigger:
    """A base for triggers that look after each sentence, read no signals, and let the model write first.

    A subclass overrides what is different, `needs` and `unit` as class attributes or as properties. One that is a
    dataclass has its fields checked against their annotations.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """No signals."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """A sentence."""
        return Unit("sentence")

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Write first."""
        return None


def check_trigger(trigger: Trigger) -> None:
    """Refuse a trigger whose `unit` or `needs` is of another type.

    Raises:
        ConfigurationError: Saying what is needed.
    """
    unit: object = trigger.unit
    if not isinstance(unit, Unit):
        advice = f"Unit({unit!r})" if isinstance(unit, str) else 'Unit("sentence")'
        raise ConfigurationError(f"the unit of {trigger!r} is {shown(unit)}; a Unit is needed, such as {advice}")
    check_needs(trigger)


def check_needs(part: Any) -> None:
    """Refuse a trigger or formulator whose `needs` are no set of signals.

    Raises:
        ConfigurationError: Listing the signals that exist.
    """
    known = get_args(Signal)
    needs: object = part.needs
    if not isinstance(needs, Set) or not all(isinstance(name, str) for name in needs):
        raise ConfigurationError(
            f"the needs of {part!r} are {shown(needs)}; a frozenset of signals is needed, of {', '.join(known)}"
        )


def verdict_on(trigger: Trigger, view: DraftView) -> Verdict:
    """Return the trigger's verdict.

    Raises:
        ConfigurationError: If what it returns is none.
    """
    return _checked(trigger, "judge", trigger.judge(view))


def verdict_before(trigger: Trigger, question: str) -> Verdict | None:
    """Return what the trigger says before anything is written.

    Raises:
        ConfigurationError: If that is neither a verdict nor None.
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
