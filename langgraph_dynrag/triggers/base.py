"""What a trigger is: it decides *when* to retrieve."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from langgraph_dynrag.draft import DraftView, Signal, Unit, Verdict


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
