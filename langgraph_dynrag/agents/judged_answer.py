"""Judge a complete answer with a trigger, piece by piece.

The graph judges a draft while it grows; an agent's answer is judged once it is complete. As long as nothing is
retrieved, both see the same pieces and views, and therefore reach the same verdicts. Pure: knows neither agents nor
models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_core.messages import AIMessage, BaseMessage

from langgraph_dynrag.drafts.collector import Collector
from langgraph_dynrag.drafts.draft import (
    AttendAlone,
    AttentionRows,
    Context,
    DocumentFrequency,
    Draft,
    DraftView,
    Signal,
    Verdict,
)
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask
from langgraph_dynrag.triggers.base import Trigger, verdict_on
from rag_backbone.text.units import WordFilter


@dataclass(frozen=True)
class WatchedAnswer:
    """A question and its answer, with the signals that a trigger or a query formulator may read."""

    question: str
    draft: Draft
    attention: AttentionRows | None = None
    context: Context | None = None
    """Position of the question in the prompt; no part of the answer is accepted yet."""
    attend_alone: AttendAlone | None = None


@dataclass(frozen=True)
class Need:
    """A piece of the answer at which information is needed."""

    view: DraftView
    verdict: Verdict


def read_answer(
    message: AIMessage, messages: Sequence[BaseMessage], trigger: Trigger, needs: frozenset[Signal]
) -> DraftResult:
    """Read the draft of a complete message, its attention, and its cost.

    Args:
        message: The answer.
        messages: The messages that it answers.
        trigger: The trigger that will judge the draft; its unit determines the pieces.
        needs: The signals to read.
    """
    task = DraftTask(
        question="",
        messages=messages,
        accepted="",
        accepted_ids=None,
        carried=Draft(),
        carried_attention=None,
        unit=trigger.unit,
        limit=1,
        needs=needs,
    )
    collector = Collector(task, StopAtUnit(task), None)
    collector.push(message)
    return collector.result()


def lacking(result: DraftResult, needs: frozenset[Signal]) -> list[Signal]:
    """Return the needed signals that the message did not carry."""
    # A draft treats tokens without a log-probability as certain, so an answer without any tells nothing.
    draft, known = result.draft, result.cost.get("tokens_without_logprobs", 0) < max(len(result.draft), 1)
    has: dict[Signal, bool] = {
        "logprob": known and len(draft.logprobs) == len(draft),
        "entropy": known and draft.entropies is not None,
        "attention": result.attention is not None,
    }
    return sorted(name for name in needs if not has.get(name, True))


def judge_answer(
    written: WatchedAnswer,
    trigger: Trigger,
    carries_content: WordFilter,
    document_frequency: DocumentFrequency | None = None,
) -> tuple[list[Need], Verdict]:
    """Judge an answer piece by piece.

    Returns:
        The pieces at which information is needed, and one verdict on the whole answer, positioned at the first of them.
    """
    draft, start = written.draft, 0
    needs: list[Need] = []
    verdicts: list[tuple[int, int, Verdict]] = []
    history: list[float] = []
    while start < len(draft):
        rest = draft[start:]
        judged = max(trigger.unit.length(rest) or len(rest), 1)
        view = DraftView(
            question=written.question,
            accepted=draft[:start].text,
            draft=rest,
            judged=judged,
            history=tuple(history),
            attention=None if written.attention is None else written.attention.shifted(start),
            context=None if written.context is None else replace(written.context, answer=draft.pieces[:start]),
            attend_alone=written.attend_alone,
            carries_content=carries_content,
            document_frequency=document_frequency,
        )
        verdict = verdict_on(trigger, view)
        verdicts.append((start, judged, verdict))
        if verdict.retrieve:
            needs.append(Need(view, verdict))
        if rest.entropies is not None:
            history += [rest.entropies[t] for t in range(judged) if view.token_carries_content(t)]
        start += judged
    return needs, _whole(verdicts)


def _whole(verdicts: Sequence[tuple[int, int, Verdict]]) -> Verdict:
    """Combine verdicts on pieces (start, tokens, verdict) into one verdict on the answer."""
    if not verdicts:
        return Verdict(False, "nothing was written")
    scores: list[float | None] = []
    for _, judged, verdict in verdicts:
        padded = [*verdict.scores[:judged], *([None] * (judged - len(verdict.scores)))]
        scores += padded
    fired = [(start, judged, v) for start, judged, v in verdicts if v.retrieve]
    start, judged, shown = fired[0] if fired else verdicts[0]
    reason = shown.reason if len(fired) < 2 else f"{shown.reason}, and at {len(fired) - 1} more"
    # A verdict without a position refers to the end of its piece.
    position = start + (judged - 1 if shown.position is None else shown.position) if fired else None
    return Verdict(
        bool(fired),
        reason,
        tuple(scores) if any(s is not None for s in scores) else (),
        shown.score,
        shown.threshold,
        position,
        tuple(at + hit for at, _, v in fired for hit in v.hits),
        shown.trigger,
    )
