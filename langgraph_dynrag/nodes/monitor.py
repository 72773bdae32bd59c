"""`monitor`: the trigger decides when to retrieve, the query formulator decides what to search for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import AttendAlone, Draft, DraftView, Verdict
from langgraph_dynrag.events.events import AcceptedEvent, Event, QueryEvent, ResumeEvent, VerdictEvent, events_of
from langgraph_dynrag.events.makers import verdict_event
from langgraph_dynrag.injection.injector import PlacedEvidence
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.queries.base import QueryPlan, last_words, plan_of, queries_of
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import AnyState, State, Update, spent
from langgraph_dynrag.steps.accept import (
    accept,
    after_acceptance,
    answer_complete,
    answered_with,
    budget_event,
    force_answer,
)
from langgraph_dynrag.steps.exchange import notified
from langgraph_dynrag.steps.insert import own_words
from langgraph_dynrag.steps.no_text import asked_again
from langgraph_dynrag.steps.sample import reader, sampler
from langgraph_dynrag.steps.task import draft_task, placed, unit_now
from langgraph_dynrag.streaming import emit
from langgraph_dynrag.triggers.base import verdict_on
from rag_backbone.aio import in_own_thread


class Monitor(Node):
    """Judges the draft's first unit, and either accepts it or searches for the missing information."""

    node_name = "monitor"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Accept the unit and continue, end the answer, or state queries."""
        view, verdict, update = judge(state, settings)
        if verdict is None:
            return update
        plan = plan_of(settings.query, view, verdict)
        replies = settings.generator.ask(plan.prompts, config) if plan.prompts else []
        return _needing(settings, view, verdict, plan, replies, update)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Accept the unit and continue, end the answer, or state queries, without blocking the event loop."""
        # `judge` may recompute lost signals, or run the second forward pass that some published methods take them from.
        view, verdict, update = await in_own_thread(judge, state, settings)
        if verdict is None:
            return update
        plan = await in_own_thread(plan_of, settings.query, view, verdict)
        replies = await settings.generator.aask(plan.prompts, config) if plan.prompts else []
        return _needing(settings, view, verdict, plan, replies, update)


def after_monitor(state: AnyState) -> Literal["generate", "retrieve", "conclude", "__end__"]:
    """Route to `retrieve` if information is missing, to the end if the answer is complete, otherwise to `generate`."""
    if state["stage"] == "done":
        return "__end__"
    if state["stage"] == "concluding":
        return "conclude"
    return "retrieve" if state["queries"] else "generate"


def judge(state: State, settings: Settings) -> tuple[DraftView, Verdict | None, Update]:
    """Judge the first unit of the draft.

    Returns:
        The view; the verdict if information is needed, otherwise None; and the update if it is not needed, otherwise an
        update with no more than a trace.
    """
    again, draft, told = asked_again(state, settings, Draft.from_state(state.get("draft")))
    if again is not None:
        return draft_view(state, settings, draft, 0), None, again
    if not told:
        return _judged(state, settings, draft)
    view, verdict, update = _judged({**state, "draft": draft.to_state()}, settings, draft)
    return view, verdict, {**update, "trace": [*told, *update.get("trace", [])]}


def _judged(state: State, settings: Settings, draft: Draft) -> tuple[DraftView, Verdict | None, Update]:
    closing = state.get("stage") == "closing"
    judged = (None if closing else unit_now(state, settings).length(draft)) or len(draft)
    view = draft_view(state, settings, draft, judged)
    if not len(draft) or closing:
        return view, None, _accepted(state, settings, judged, [])
    if state.get("regenerating") and not settings.recheck:
        reason = "written with the passages found"
        event = VerdictEvent(type="verdict", retrieve=False, reason=reason, tokens=judged)
        return view, None, _accepted(state, settings, judged, [event])
    hit = exhausted(state, settings)
    complete = answer_complete(view.accepted, draft, judged, settings)
    if not complete and (told := notified(state, settings, view, hit)) is not None:
        return view, None, told
    if hit is not None:
        events = [] if state.get("budget_hit") else [budget_event(hit, settings)]
        return view, None, {"budget_hit": state.get("budget_hit") or hit, **_accepted(state, settings, judged, events)}
    verdict = verdict_on(settings.trigger, view)
    event = verdict_event(verdict, judged)
    emit(event)
    if verdict.answer is not None and not verdict.retrieve:
        return view, None, answered_with(state, settings, verdict.answer, event)
    over = complete or (draft.ended == "end" and judged == len(draft))
    if not verdict.retrieve or (verdict.position is None and over):
        return view, None, _accepted(state, settings, judged, [event], ends=verdict.ends)
    return view, verdict, {}


def draft_view(state: State, settings: Settings, draft: Draft, judged: int) -> DraftView:
    """Return the draft with everything that trigger and query formulator may read. Lost signals are recomputed."""
    needs = settings.needs
    attention = state.get("attention") if "attention" in needs else None
    context = None
    where = placed(state, settings) if needs & {"attention", "attention_alone"} else None
    if "attention" in needs and len(draft) and state.get("stage") != "closing":
        task = draft_task({**state, "draft": None}, settings, where)
        if attention is None:
            attention = settings.generator.recompute(task, draft)
        context = settings.generator.context(task)
    return DraftView(
        question=state["question"],
        accepted=own_words(state),
        draft=draft,
        judged=judged,
        history=tuple(state.get("entropies") or ()),
        attention=attention,
        context=context,
        attend_alone=_attend_alone(where, settings) if where and "attention_alone" in needs else None,
        sample_ends=sampler(state, settings) if "end_states" in needs else None,
        read_states=reader(state, settings, draft[:judged]) if "hidden_states" in needs else None,
        rounds=len(events_of(state.get("trace") or [], ResumeEvent)),
        carries_content=settings.carries_content,
        passages=state.get("evidence") or (),
        document_frequency=getattr(settings.retriever, "document_frequency", None),
    )


def _attend_alone(where: PlacedEvidence, settings: Settings) -> AttendAlone:
    alone = settings.generator.attend_alone
    return alone if where.adapters is None else partial(alone, adapters=where.adapters)


def exhausted(state: State, settings: Settings) -> str | None:
    """Return the budget that forbids another search; None if there is none."""
    if (state.get("retrievals") or 0) >= settings.budgets.retrievals:
        return "retrievals"
    if (state.get("identical") or 0) > settings.budgets.identical_retrievals:
        return "identical_retrievals"
    if spent(state) >= settings.budgets.seconds:
        return "seconds"
    return None


def _accepted(state: State, settings: Settings, judged: int, events: Sequence[Event], *, ends: bool = False) -> Update:
    draft = Draft.from_state(state.get("draft"))
    # Passages for a single sentence leave the prompt with it, so tokens drafted beyond it no longer hold.
    leaving = settings.evidence_life == "sentence" and bool(state.get("evidence")) and state.get("stage") == "drafting"
    update = accept(state, settings, draft, judged, keep_rest=not leaving)
    if leaving:
        update["evidence"] = []
    update["trace"] = [*events, AcceptedEvent(type="accepted", text=draft[:judged].text, tokens=judged)]
    update["queries"] = []
    if ends:
        return force_answer(state, update, settings)
    return after_acceptance(state, update, settings, draft, judged)


def _needing(
    settings: Settings, view: DraftView, verdict: Verdict, plan: QueryPlan, replies: list[str], known: Update
) -> Update:
    queries = final_queries(settings, view, verdict, plan, replies)
    event = QueryEvent(type="query", queries=list(queries), rewrite=0)
    emit(event)
    return {
        "queries": list(queries),
        "verdict": verdict.to_state(),
        "judged": view.judged,
        "rewrites": 0,
        "trace": [*known.get("trace", []), verdict_event(verdict, view.judged), event],
    }


def final_queries(
    settings: Settings, view: DraftView, verdict: Verdict, plan: QueryPlan, replies: list[str]
) -> tuple[str, ...]:
    """Return the queries of a plan or of the replies to its prompts, cut and deduplicated; else the question."""
    queries = plan.queries or queries_of(settings.query, view, verdict, replies)
    cut = [shortened(q, settings) for q in queries]
    return tuple(dict.fromkeys(q for q in cut if q)) or (shortened(view.question, settings),)


def shortened(query: str, settings: Settings) -> str:
    """Return the query's last words within the token limit, with white space collapsed."""
    return last_words(query, settings.query_tokens, settings.generator.count_tokens)
