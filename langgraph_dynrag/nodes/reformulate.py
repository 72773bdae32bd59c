"""`reformulate`: check the results of a search, and write another query if they do not help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.events.events import ReformulationEvent
from langgraph_dynrag.events.parts import Outcome, SearchProblem
from langgraph_dynrag.nodes.monitor import exhausted, shortened
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.queries.base import asked_before
from langgraph_dynrag.queries.rewrite import clean_reply, rewrite_prompt
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import AnyState, State, Update
from langgraph_dynrag.streaming import emit


class Reformulate(Node):
    """Passes useful evidence on; otherwise tries a bounded number of other queries, or records that none helped."""

    node_name = "reformulate"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Judge the passages found, and rewrite the query if they do not help."""
        problem = find_problem(state, settings)
        if not _may_rewrite(state, settings, problem):
            return _settled(state, settings, problem)
        replies = settings.generator.ask([_prompt(state)], config)
        return _rewritten(state, settings, problem, replies)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Judge the passages found, and rewrite the query if they do not help, without blocking the event loop."""
        problem = find_problem(state, settings)
        if not _may_rewrite(state, settings, problem):
            return _settled(state, settings, problem)
        replies = await settings.generator.aask([_prompt(state)], config)
        return _rewritten(state, settings, problem, replies)


def after_reformulate(state: AnyState) -> Literal["retrieve", "resume"]:
    """Route to `retrieve` if there is another query, otherwise to `resume`."""
    return "retrieve" if state["queries"] else "resume"


def find_problem(state: State, settings: Settings) -> SearchProblem | None:
    """Return what is wrong with the passages found; None if nothing is."""
    found = state.get("found") or []
    if not found:
        return "nothing found"
    least = settings.reformulation.min_score
    if least is not None and all(p["score"] is not None and p["score"] < least for p in found):
        return "low scores"
    present = {p["id"] for p in state.get("evidence") or []}
    if all(p["id"] in present for p in found):
        return "nothing new"
    asked = state.get("asked") or []
    earlier = asked[: len(asked) - len(state["queries"])]
    if all(asked_before(q, earlier) for q in state["queries"]):
        return "same query"
    return None


def _may_rewrite(state: State, settings: Settings, problem: SearchProblem | None) -> bool:
    used = state.get("rewrites") or 0
    return problem is not None and used < settings.reformulation.max_rewrites and exhausted(state, settings) is None


def _prompt(state: State) -> str:
    written = (state.get("text") or "") + Draft.from_state(state.get("draft"))[: state.get("judged") or 0].text
    return rewrite_prompt(state["question"], written.strip(), state["queries"])


def _rewritten(state: State, settings: Settings, problem: SearchProblem | None, replies: Sequence[str]) -> Update:
    asked = state.get("asked") or []
    written = Draft.from_state(state.get("draft"))[: state.get("judged") or 0].text
    # The model's own words come first, then fallbacks that always make a query. A query asked before cannot help.
    candidates = [clean_reply(replies[0], 32) if replies else "", state["question"], f"{state['question']} {written}"]
    query = next((q for c in candidates if (q := shortened(c, settings)) and not asked_before(q, asked)), None)
    if query is None:
        return _settled(state, settings, problem)
    rewrites = (state.get("rewrites") or 0) + 1
    event = ReformulationEvent(type="reformulation", problem=problem, query=query, rewrite=rewrites)
    emit(event)
    return {"queries": [query], "rewrites": rewrites, "found": [], "trace": [event]}


def _settled(state: State, settings: Settings, problem: SearchProblem | None) -> Update:
    skip = problem == "nothing new" and settings.reformulation.repeats == "skip"
    useless = problem in ("nothing found", "low scores") or skip
    outcome: Outcome = "nothing found" if useless else "evidence"
    event = ReformulationEvent(type="reformulation", problem=problem, outcome=outcome)
    emit(event)
    return {"queries": [], "found": [] if useless else state.get("found") or [], "trace": [event]}
