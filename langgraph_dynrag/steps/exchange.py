"""Answering the searches that a model writes into its answer: results, or a notice why there are none.

Used by `monitor` (notices) and `resume` (results) where the settings have a `tag_format`. What is inserted is part of
the running text, for the model to go on from, and hidden from the answer. Every exchange is recorded (an `inserted`
event) and counted: after `TagFormat.turns` of them the answer is asked for outright.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from langgraph_dynrag.draft import Draft, DraftView
from langgraph_dynrag.events import AcceptedEvent, BudgetEvent, InsertedEvent
from langgraph_dynrag.evidence import Passage, within_budget
from langgraph_dynrag.queries.base import asked_before
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, Update
from langgraph_dynrag.steps.accept import accept, after_acceptance, budget_event, force_answer
from langgraph_dynrag.steps.digest import Digest
from langgraph_dynrag.steps.insert import insert, room_left
from langgraph_dynrag.streaming import emit
from langgraph_dynrag.tags import Problem, TagFormat


def call_problem(
    tag_format: TagFormat, view: DraftView, asked: Sequence[str], hit: str | None, shortened: Callable[[str], str]
) -> Problem | None:
    """Why the judged tokens' last call cannot be answered with results; None if it can, or if there is none.

    Args:
        tag_format: The marks.
        view: Its accepted text is the model's own words, without the calls that were answered.
        asked: The queries of this run.
        hit: The budget that forbids another search, if any.
        shortened: Cuts a query as it was cut before it was asked.
    """
    calls = tag_format.new_calls(view.accepted, view.unit.text)
    if not calls:
        over = view.draft.ended == "end" and view.judged == len(view.draft)
        opened = tag_format.open_call(view.accepted + view.unit.text) is not None
        return "unclosed" if over and opened else None
    if hit is not None:
        return "limit"
    if not calls[-1].query:
        return "empty"
    return "repeated" if asked_before(shortened(calls[-1].query), asked) else None


def notify(
    state: State, settings: Settings, draft: Draft, judged: int, problem: Problem, hit: str | None = None
) -> Update:
    """Accept the judged tokens, tell the model why its call brings no results, and let it go on.

    Args:
        state: The state.
        settings: The graph's settings.
        draft: The draft.
        judged: How many of its tokens are accepted.
        problem: Why.
        hit: The budget that forbids another search, if any.
    """
    assert settings.tag_format is not None
    accepted = accept(state, settings, draft, judged, keep_rest=False)
    accepted["queries"] = []
    accepted["trace"] = [AcceptedEvent(type="accepted", text=draft[:judged].text, tokens=judged)]
    if hit is not None and not state.get("budget_hit"):
        accepted |= {"budget_hit": hit, "trace": [budget_event(hit, settings), *accepted["trace"]]}
    update, full = _with_notice(state, accepted, settings, problem)
    notices = (state.get("notices") or 0) + 1
    update = {**update, "notices": notices}
    turns = (state.get("retrievals") or 0) + notices
    if turns >= settings.tag_format.turns:
        full = True
        event = BudgetEvent(type="budget", which="turns", limit=settings.tag_format.turns)
        emit(event)
        update = {**update, "budget_hit": "turns", "trace": [*update["trace"], event]}
    if full:
        return force_answer(state, update, settings)
    # The text goes on after the notice, however the draft ended.
    return after_acceptance(state, update, settings, replace(draft, ended="unit"), judged)


def give_results(
    state: State, update: Update, settings: Settings, found: Sequence[Passage], digest: Digest
) -> tuple[Update, bool]:
    """Insert what was found after the accepted text, or what the model made of it.

    Returns:
        The update, and whether the context window is full, so that only the answer is left to ask for.
    """
    tag_format = settings.tag_format
    assert tag_format is not None
    count = settings.generator.count_tokens
    room = room_left(state, update, settings) - count(tag_format.results(()))
    budget = int(max(min(settings.context_tokens, room), 0))
    contents = found if digest.passage is None else [digest.passage]
    fitting, affected = within_budget([tag_format.disarmed(p) for p in contents], budget, count)
    if not fitting:
        return _with_notice(state, update, settings, "no room" if found else "nothing found")
    if digest.passage is None:
        block, ids = tag_format.results(fitting), [p["id"] for p in fitting]
    else:
        block, ids = tag_format.block(fitting[0]["text"]), list(digest.documents)
    event = InsertedEvent(type="inserted", problem=None, text=block, passages=ids)
    if affected:
        event["shortened_or_left_out"] = affected
    emit(event)
    return insert({**update, "trace": [*update.get("trace", []), event]}, settings, block), False


def _with_notice(state: State, update: Update, settings: Settings, problem: Problem) -> tuple[Update, bool]:
    tag_format = settings.tag_format
    assert tag_format is not None
    block, since = tag_format.notice(problem), None
    if problem == "unclosed":
        hidden = update["hidden"]
        since = tag_format.open_call(update["text"], hidden[-1][1] if hidden else 0)
        block = tag_format.call[1] + block
    full = settings.generator.count_tokens(block) > room_left(state, update, settings)
    event = InsertedEvent(type="inserted", problem=problem, text="" if full else block, passages=[])
    emit(event)
    update = {**update, "trace": [*update.get("trace", []), event]}
    return (update if full else insert(update, settings, block, since=since)), full
