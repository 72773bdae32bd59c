"""`generate`, `monitor` and `resume` for segment selection: one continuation per passage, and a beam of the best ones.

The nodes run in the usual order. `generate` asks the model whether the next segment needs a passage, and `monitor` lets
the trigger decide. If it does, `retrieve`, `reformulate` and `resume` supply the passages. Then `generate` writes all
continuations in one batch, and `monitor` keeps the best. Segments that all hypotheses of the beam share are accepted
immediately. If several hypotheses search at once, each is continued with each of the passages found, `k` in total. The
closing step is the same as without a beam.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.events.events import AcceptedEvent, Event, QueryEvent, TokenEvent
from langgraph_dynrag.events.makers import draft_event
from langgraph_dynrag.events.parts import Continuation, HypothesisDecision, KeptHypothesis, PassageName
from langgraph_dynrag.events.selection_events import ContinuationsEvent, JudgementEvent, ReflectionEvent, SelectionEvent
from langgraph_dynrag.evidence import Passage, name_of
from langgraph_dynrag.nodes.generate import Generate
from langgraph_dynrag.nodes.monitor import Monitor, exhausted, final_queries
from langgraph_dynrag.nodes.resume import Resume
from langgraph_dynrag.queries.base import QueryPlan, plan_of
from langgraph_dynrag.reflection.base import ContinuationBatch, Expansion, Reflector, SegmentSelection
from langgraph_dynrag.reflection.beam import Beam, Decision, Hypothesis, Segment, SegmentCandidate
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, Update, spent
from langgraph_dynrag.steps.accept import accept, after_acceptance, budget_event, finish
from langgraph_dynrag.steps.task import derived_seed
from langgraph_dynrag.steps.vote import vote
from langgraph_dynrag.streaming import emit
from langgraph_dynrag.triggers.base import verdict_on
from rag_backbone.aio import in_own_thread


class Expand(Generate):
    """Asks the model what the beam's hypotheses need, or writes their continuations."""

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Judge the need for passages, or write one continuation for each passage."""
        return super().run(state, settings, config) if _closing(state) else expand(state, settings)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Judge the need for passages, or write one continuation for each passage, without blocking the event loop."""
        if _closing(state):
            return await super().arun(state, settings, config)
        return await in_own_thread(expand, state, settings)


class DecideAndSelect(Monitor):
    """Decides how hypotheses continue, or which continuations to keep."""

    streams = False

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """State queries, request continuations, accept the segments that are certain, or end the answer."""
        if _closing(state):
            return super().run(state, settings, config)
        beam = Beam.from_state(state.get("beam"))
        if beam.candidates:
            return select(state, settings, beam)
        views, plans = _plans(state, settings, beam)
        replies = {i: settings.generator.ask(p.prompts, config) if p.prompts else [] for i, p in plans.items()}
        return _decided(state, settings, beam, views, plans, replies)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """State queries, request continuations, accept the segments that are certain, or end the answer."""
        if _closing(state):
            return await super().arun(state, settings, config)
        beam = Beam.from_state(state.get("beam"))
        if beam.candidates:
            return select(state, settings, beam)
        views, plans = _plans(state, settings, beam)
        replies = {i: await settings.generator.aask(p.prompts, config) if p.prompts else [] for i, p in plans.items()}
        return _decided(state, settings, beam, views, plans, replies)


class ResumeBeam(Resume):
    """Provides the passages found. If there are none, hypotheses continue without."""

    streams = False

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Store the evidence without blocking the event loop."""
        return await in_own_thread(self.run, state, settings, config)

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Store the evidence. A beam has no draft to cut back."""
        # If time has run out, `monitor` ends the answer, because it knows the best hypothesis.
        unhurried = replace(settings, budgets=replace(settings.budgets, seconds=math.inf))
        update = super().run(state, unhurried, config)
        if state.get("found"):
            return update
        beam = Beam.from_state(state.get("beam"))
        made = {
            i: replace(h.decision, retrieve=False, reason=f"{h.decision.reason}; nothing found")
            for i, h in enumerate(beam.hypotheses)
            if h.decision is not None and h.decision.retrieve
        }
        return {**update, "beam": beam.decided(made).to_state()}


# ---------------------------------------------------------------------------------------------------- generate


def expand(state: State, settings: Settings) -> Update:
    """Ask what the open hypotheses need or, once that is decided, continue them."""
    beam = Beam.from_state(state.get("beam"))
    return _asked(state, settings, beam) if beam.undecided else _written(state, settings, beam)


def _asked(state: State, settings: Settings, beam: Beam) -> Update:
    judgements: list[dict[str, float] | None] = [None] * len(beam.hypotheses)
    events: list[Event] = []
    if getattr(settings.trigger, "asks", False):
        asked = beam.undecided
        judged = _reflector(settings).retrieval(state["question"], settings.prompt, [beam.hypotheses[i] for i in asked])
        for i, p in zip(asked, judged.probabilities, strict=True):
            judgements[i] = dict(p)
        event = JudgementEvent(
            type="judgement",
            retrieval=judgements,
            forward_tokens=judged.counts.forward_tokens,
            cached_tokens=judged.counts.cached_tokens,
            generated_tokens=judged.counts.generated_tokens,
        )
        emit(event)
        events.append(event)
    return {"beam": replace(beam, judgements=tuple(judgements)).to_state(), "trace": events}


def _written(state: State, settings: Settings, beam: Beam) -> Update:
    expansions = _expansions(state, settings, beam)
    room = settings.budgets.tokens + settings.budgets.closing_tokens

    def tell(number: int, piece: str, logprob: float, entropy: float | None) -> None:
        emit(TokenEvent(type="token", text=piece, logprob=logprob, entropy=entropy, candidate=number))

    written = _reflector(settings).write(
        ContinuationBatch(
            question=state["question"],
            prompt=settings.prompt,
            expansions=expansions,
            passage_tokens=settings.context_tokens,
            reserve=max(0, room - min(e.limit for e in expansions)),
            deadline=time.monotonic() + settings.budgets.seconds - spent(state),
            on_token=tell,
        )
    )
    event = ContinuationsEvent(
        type="continuations",
        path=_reflector(settings).path,
        weights=asdict(_selection(settings).weights),
        candidates=[_described(c, beam) for c in written.candidates],
        forward_tokens=written.counts.forward_tokens,
        cached_tokens=written.counts.cached_tokens,
        generated_tokens=written.counts.generated_tokens,
    )
    if affected := [*written.shortened, *(id_ for _, id_ in written.left_out)]:
        event["shortened_or_left_out"] = affected
    emit(event)
    return {"beam": replace(beam, candidates=written.candidates).to_state(), "trace": [event]}


def _expansions(state: State, settings: Settings, beam: Beam) -> list[Expansion]:
    evidence: list[Passage] = list(state.get("evidence") or [])
    made: list[Expansion] = []
    # In the short form, a continuation is the whole answer.
    most = settings.budgets.tokens if _selection(settings).form == "short" else settings.lookahead
    for i, h in enumerate(beam.hypotheses):
        if h.ended:
            continue
        assert h.decision is not None
        fresh = h.decision.retrieve and bool(evidence)
        passages: Sequence[Passage | None] = evidence if fresh else [h.passage if h.decision.keep else None]
        limit = max(1, min(most, settings.budgets.tokens - h.tokens))
        for passage in passages:
            seed = None
            if settings.seed is not None:
                seed = derived_seed(settings.seed, state["question"], len(h.segments), len(made))
            made.append(Expansion(i, h, passage, fresh, limit, seed))
    return made


# ---------------------------------------------------------------------------------------------------- monitor


_Views = Mapping[int, tuple[DraftView, Verdict]]


def _plans(state: State, settings: Settings, beam: Beam) -> tuple[_Views, dict[int, QueryPlan]]:
    """Return the verdict on each undecided hypothesis, and a query plan for those that need passages."""
    views = {}
    for i in beam.undecided:
        view = DraftView(
            question=state["question"],
            accepted=beam.hypotheses[i].text,
            draft=Draft(),
            judged=0,
            retrieval=beam.judgements[i],
            carries_content=settings.carries_content,
        )
        views[i] = (view, verdict_on(settings.trigger, view))
    if exhausted(state, settings) is not None:
        return views, {}
    needing = {i: pair for i, pair in views.items() if pair[1].retrieve}
    return views, {i: plan_of(settings.query, view, verdict) for i, (view, verdict) in needing.items()}


def _decided(
    state: State,
    settings: Settings,
    beam: Beam,
    views: _Views,
    plans: Mapping[int, QueryPlan],
    replies: Mapping[int, list[str]],
) -> Update:
    """Decide how each hypothesis continues. If the budget does not cover all searches, the best hypotheses get them."""
    hit = exhausted(state, settings)
    left = settings.budgets.retrievals - (state.get("retrievals") or 0)
    queries: list[str] = []
    made: dict[int, Decision] = {}
    blocked = False
    for i, (view, verdict) in views.items():
        wanted = _queries(settings, view, verdict, plans.get(i), replies.get(i, [])) if verdict.retrieve else ()
        new = [q for q in wanted if q not in queries]
        retrieve = verdict.retrieve and hit is None and len(queries) + len(new) <= left
        blocked |= verdict.retrieve and not retrieve
        if retrieve:
            queries += new
        made[i] = _decision(beam.hypotheses[i], beam.judgements[i], verdict, wanted, retrieve=retrieve)
    events: list[Event] = []
    if blocked:
        hit = hit or "retrievals"
        if not state.get("budget_hit"):
            events.append(budget_event(hit, settings))
    decisions = [HypothesisDecision(hypothesis=i, **d.to_state()) for i, d in made.items()]
    told: list[Event] = [ReflectionEvent(type="reflection", decisions=decisions)]
    if queries:
        told.append(QueryEvent(type="query", queries=queries, rewrite=0))
    for event in told:
        emit(event)
    return {
        "beam": beam.decided(made).to_state(),
        "queries": queries,
        "verdict": None,
        "judged": 0,
        "rewrites": 0,
        "budget_hit": state.get("budget_hit") or (hit if blocked else None),
        "trace": [*events, *told],
    }


def _queries(
    settings: Settings, view: DraftView, verdict: Verdict, plan: QueryPlan | None, replies: list[str]
) -> tuple[str, ...]:
    if plan is None:  # a budget is exhausted
        return ()
    return final_queries(settings, view, verdict, plan, replies)


def _decision(
    h: Hypothesis,
    probabilities: Mapping[str, float] | None,
    verdict: Verdict,
    queries: Sequence[str],
    *,
    retrieve: bool,
) -> Decision:
    p = probabilities or {}
    # Keep the current passage if that is likelier than needing none. The threshold only decides about a new search.
    keep = not retrieve and h.passage is not None and p.get("continue", 0.0) > p.get("no", 0.0)
    reason = verdict.reason
    if verdict.retrieve and not retrieve:
        reason += "; no search is left"
    query = "; ".join(queries) if retrieve else None
    return Decision(retrieve, keep, reason, verdict.score, verdict.threshold, probabilities, query)


def select(state: State, settings: Settings, beam: Beam) -> Update:
    """Keep the best continuations. Accept the segments that all of them share and, at the end, the best hypothesis."""
    selection = _selection(settings)
    voted = vote(beam, selection, settings.prompt)
    beam = beam if voted is None else voted.beam
    chosen = beam.advanced(selection.width, selection.unsupported).limited(settings.budgets.tokens, selection.segments)
    late = spent(state) >= settings.budgets.seconds
    over = late or all(h.ended for h in chosen.hypotheses)
    best = chosen.hypotheses[0]
    new = (best.segments if over else chosen.certain)[beam.accepted :]
    draft = Draft()
    for segment in new:
        draft += segment.draft
    update = accept(state, settings, draft, len(draft), keep_rest=False)
    if _reflector(settings).path == "tokens":
        update["token_ids"] = None  # the model's context holds more than the text
    kept = [KeptHypothesis(text=h.text, score=h.score, passages=_passages(h), ended=h.ended) for h in chosen.hypotheses]
    event = SelectionEvent(type="selection", beam=kept, over=over)
    if voted is not None:
        event["vote"] = voted.record
    emit(event)
    update |= {
        "beam": None if over else replace(chosen, accepted=beam.accepted + len(new)).to_state(),
        "queries": [],
        "trace": [event, *_drafts(new)],
    }
    short = None if voted is None else voted.answer
    return _ended(state, settings, update, best, draft, late=late, short=short) if over else update


def _ended(
    state: State, settings: Settings, update: Update, best: Hypothesis, draft: Draft, *, late: bool, short: str | None
) -> Update:
    """End with the best hypothesis or the answer voted for; only passages of the best hypothesis remain as sources."""
    which = best.stopped or ("seconds" if late and not best.ended else None)
    if which == "segments":
        if _selection(settings).form == "long":  # in the short form, one segment is the whole answer
            update["trace"].append(budget_event(which, settings, _selection(settings).depth))
    elif which is not None:
        update |= {"budget_hit": which, "trace": [*update["trace"], budget_event(which, settings)]}
    used = [s.passage["id"] for s in best.segments if s.passage is not None]
    sources = [s for s in state.get("sources") or [] if s["id"] in used]
    sources = [{**s, "number": number} for number, s in enumerate(sources, 1)]
    update |= {"sources": sources, "evidence": [] if best.passage is None else [best.passage]}
    if short is not None:
        return finish({**state, "sources": sources}, update, settings, short=short)
    ended = replace(draft, ended="end")
    return after_acceptance({**state, "sources": sources}, update, settings, ended, len(ended))


# ---------------------------------------------------------------------------------------------------- records


def _drafts(segments: Sequence[Segment]) -> list[Event]:
    events: list[Event] = []
    for s in segments:
        evidence = [] if s.passage is None else [s.passage["id"]]
        # The continuations event already counts what these tokens cost, so they are recorded as carried over.
        events.append(draft_event(s.draft, carried=len(s.draft), evidence=evidence))
        events.append(AcceptedEvent(type="accepted", text=s.draft.text, tokens=len(s.draft)))
    return events


def _described(candidate: SegmentCandidate, beam: Beam) -> Continuation:
    s = candidate.segment
    decision = beam.hypotheses[candidate.parent].decision
    passage = None if s.passage is None else PassageName(id=s.passage["id"], title=name_of(s.passage))
    return {
        "hypothesis": candidate.parent,
        "passage": passage,
        "kept_passage": s.passage is not None and decision is not None and decision.keep,
        "text": s.draft.text,
        "tokens": len(s.draft),
        **s.score.to_state(),
        "probabilities": s.critique.to_state(),
        "ended": s.ended,
    }


def _passages(h: Hypothesis) -> list[str | None]:
    return [None if s.passage is None else s.passage["id"] for s in h.segments]


def _closing(state: State) -> bool:
    return state.get("stage") == "closing"


def _reflector(settings: Settings) -> Reflector:
    assert settings.reflector is not None  # these nodes are only built with one
    return settings.reflector


def _selection(settings: Settings) -> SegmentSelection:
    return _reflector(settings).selection
