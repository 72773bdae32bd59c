"""A whole answer under a trigger's eyes: out of a model's message, piece by piece.

In the graph a draft is looked at while it grows; an agent's answer is looked at when it is there. The pieces, the views
and so the verdicts are the same, as long as nothing is retrieved. Pure: knows neither agents nor models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_core.messages import AIMessage, BaseMessage

from langgraph_dynrag.drafts.collector import Collector
from langgraph_dynrag.drafts.draft import AttendAlone, AttentionRows, Context, Draft, DraftView, Signal, Verdict
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask
from langgraph_dynrag.triggers.base import Trigger, verdict_on
from rag_backbone.text.units import WordFilter


@dataclass(frozen=True)
class WatchedAnswer:
    """A question and what was answered, with what a trigger or a formulator may read."""

    question: str
    draft: Draft
    attention: AttentionRows | None = None
    context: Context | None = None
    """The question's place in the prompt; no part of the answer is accepted yet."""
    attend_alone: AttendAlone | None = None


@dataclass(frozen=True)
class Need:
    """A piece of the answer at which information is needed."""

    view: DraftView
    verdict: Verdict


def read_answer(
    message: AIMessage, messages: Sequence[BaseMessage], trigger: Trigger, needs: frozenset[Signal]
) -> DraftResult:
    """The draft of a complete message, its attention, and what it cost.

    Args:
        message: The answer.
        messages: What it answers.
        trigger: Whose unit the draft is for.
        needs: The signals that are to be read.
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
    """The signals that are needed and that the message did not bring."""
    # Tokens whose log-probability did not come count as sure in a draft; an answer without any tells nothing.
    draft, known = result.draft, result.cost.get("tokens_without_logprobs", 0) < max(len(result.draft), 1)
    has: dict[Signal, bool] = {
        "logprob": known and len(draft.logprobs) == len(draft),
        "entropy": known and draft.entropies is not None,
        "attention": result.attention is not None,
    }
    return sorted(name for name in needs if not has.get(name, True))


def judge_answer(written: WatchedAnswer, trigger: Trigger, carries_content: WordFilter) -> tuple[list[Need], Verdict]:
    """Judge an answer piece by piece.

    Returns:
        The pieces at which information is needed; and one verdict on the whole answer, whose position is that of the
        first of them.
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
    """Verdicts on pieces (start, tokens, verdict) as one on the answer."""
    if not verdicts:
        return Verdict(False, "nothing was written")
    scores: list[float | None] = []
    for _, judged, verdict in verdicts:
        padded = [*verdict.scores[:judged], *([None] * (judged - len(verdict.scores)))]
        scores += padded
    fired = [(start, judged, v) for start, judged, v in verdicts if v.retrieve]
    start, judged, shown = fired[0] if fired else verdicts[0]
    reason = shown.reason if len(fired) < 2 else f"{shown.reason}, and at {len(fired) - 1} more"
    # One that names no token speaks of the end of its piece.
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
