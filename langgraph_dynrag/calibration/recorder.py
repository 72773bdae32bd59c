"""Record a trigger's verdicts on drafts that the graph writes without acting on them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.thresholds import JudgedPiece
from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from langgraph_dynrag.events.events import RetrievalEvent, events_of
from langgraph_dynrag.triggers.base import Trigger, verdict_before, verdict_on
from langgraph_dynrag.triggers.threshold import with_threshold
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True)
class Drafted:
    """A question that was answered without acting on the trigger."""

    asked: CalibrationQuestion
    answer: str
    """The short answer."""
    searches: int
    """Searches before the answer, if the method begins with one."""
    judgements: tuple[JudgedPiece, ...]


class Recorder:
    """A trigger that records the verdicts of another trigger and never asks for a search itself."""

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger
        self._seen: list[JudgedPiece] = []

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the recorded trigger needs."""
        return self._trigger.needs

    @property
    def unit(self) -> Unit:
        """Unit of the recorded trigger."""
        return self._trigger.unit

    def before(self, question: str) -> Verdict | None:
        """Record the trigger's verdict on the question, if it has one, and return None."""
        verdict = verdict_before(self._trigger, question)
        if verdict is not None:
            self._keep(verdict, lambda trigger: trigger.before(question))
        return None

    def judge(self, view: DraftView) -> Verdict:
        """Record the trigger's verdict on the draft, and return it without anything to act on."""
        if view.attend_alone is not None:  # takes a forward pass, which is not repeated for each threshold
            view = replace(view, attend_alone=_remembering(view.attend_alone))
        if view.sample_ends is not None:  # samples dozens of sequences, which do not depend on the threshold
            view = replace(view, sample_ends=functools.cache(view.sample_ends))
        if view.read_states is not None:
            view = replace(view, read_states=functools.cache(view.read_states))
        verdict = verdict_on(self._trigger, view)
        self._keep(verdict, lambda trigger: trigger.judge(view))
        return replace(verdict, retrieve=False, position=None, hits=(), answer=None)

    def taken(self) -> tuple[JudgedPiece, ...]:
        """Return the pieces judged since the last call, and clear them."""
        seen, self._seen = tuple(self._seen), []
        return seen

    def _keep(self, verdict: Verdict, decide: Any) -> None:
        scores = [s for s in (*verdict.scores, verdict.score) if s is not None]

        def fires(threshold: float) -> bool | None:
            try:
                trigger = with_threshold(self._trigger, threshold)
            except ConfigurationError:
                return None
            return bool(decide(trigger).retrieve)

        self._seen.append(JudgedPiece(fires, tuple(scores)))

    def __repr__(self) -> str:
        return f"Recorder({self._trigger!r})"


def write_drafts(graph: Any, recorder: Recorder, questions: Iterable[CalibrationQuestion]) -> list[Drafted]:
    """Answer the questions with a graph whose trigger is `recorder`."""
    drafted = []
    for asked in questions:
        recorder.taken()
        result = graph.invoke({"question": asked.question})
        drafted.append(Drafted(asked, result["short_answer"], _searches(result), recorder.taken()))
    return drafted


def answered(graph: Any, asked: CalibrationQuestion) -> tuple[str, int]:
    """Return the short answer to a question and the number of searches it took."""
    result = graph.invoke({"question": asked.question})
    return result["short_answer"], _searches(result)


def _searches(result: dict[str, Any]) -> int:
    return len(events_of(result["trace"], RetrievalEvent))


def _remembering(attend_alone: Any) -> Any:
    @functools.cache
    def known(text: str, token_ids: tuple[int, ...] | None) -> Any:
        return attend_alone(text, token_ids)

    def remembered(text: str, token_ids: Sequence[int] | None) -> Any:
        return known(text, None if token_ids is None else tuple(token_ids))

    return remembered
