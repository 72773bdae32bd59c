"""Answering the searches that a model writes into its answer, with results or with a notice why there are none.

These steps do nothing if the model writes no searches. `monitor` uses them for notices, `resume` for results. Inserted
blocks are part of the running text, so that the model continues after them, but are hidden from the answer. Every
exchange is recorded as an `inserted` event and counted. After `TagFormat.turns` of them, the short answer is asked for
outright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from langgraph_dynrag.drafts.draft import DraftView
from langgraph_dynrag.events.events import AcceptedEvent, InsertedEvent
from langgraph_dynrag.evidence import Passage, within_budget
from langgraph_dynrag.queries.base import asked_before, last_words
from langgraph_dynrag.search_tags.formats import Problem, TagFormat
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, Update
from langgraph_dynrag.steps.accept import accept, after_acceptance, budget_event, force_answer
from langgraph_dynrag.steps.digest import Digest
from langgraph_dynrag.steps.insert import insert, last_hidden, room_left
from langgraph_dynrag.streaming import emit


def notified(state: State, settings: Settings, view: DraftView, hit: str | None) -> Update | None:
    """Accept the judged tokens, with a notice why their last call gets no results; return None if it may get some.

    `hit` is the budget that forbids another search, if any. The view's accepted text is the model's own words.
    """
    tag_format = settings.tag_format
    problem = None if tag_format is None else _problem(state, settings, tag_format, view, hit)
    if tag_format is None or problem is None:
        return None
    draft, judged = view.draft, view.judged
    accepted = accept(state, settings, draft, judged, keep_rest=False)
    accepted["queries"] = []
    accepted["trace"] = [AcceptedEvent(type="accepted", text=draft[:judged].text, tokens=judged)]
    if hit is not None and not state.get("budget_hit"):
        accepted |= {"budget_hit": hit, "trace": [budget_event(hit, settings), *accepted["trace"]]}
    update, full = _with_notice(state, accepted, settings, tag_format, problem)
    notices = (state.get("notices") or 0) + 1
    update = {**update, "notices": notices}
    turns = (state.get("retrievals") or 0) + notices
    if turns >= tag_format.turns:
        full = True
        event = budget_event("turns", settings, tag_format.turns)
        update = {**update, "budget_hit": "turns", "trace": [*update["trace"], event]}
    if full:
        return force_answer(state, update, settings)
    # The text continues after the notice, however the draft ended.
    return after_acceptance(state, update, settings, replace(draft, ended="unit"), judged)


def with_results(
    state: State, update: Update, settings: Settings, found: Sequence[Passage], digest: Digest
) -> tuple[Update, bool]:
    """Insert the passages found or their digest.

    Returns:
        The update, and whether only the short answer still fits into the context window.
    """
    tag_format, count = settings.tag_format, settings.generator.count_tokens
    if tag_format is None:
        return update, False
    room = room_left(state, update, settings) - count(tag_format.results(()))
    budget = int(max(min(settings.context_tokens, room), 0))
    contents = found if digest.passage is None else [digest.passage]
    fitting, affected = within_budget([tag_format.disarmed(p) for p in contents], budget, count)
    if not fitting:
        return _with_notice(state, update, settings, tag_format, "no room" if found else "nothing found")
    if digest.passage is None:
        block, ids = tag_format.results(fitting), [p["id"] for p in fitting]
    else:
        block, ids = tag_format.block(fitting[0]["text"]), list(digest.documents)
    event = InsertedEvent(type="inserted", problem=None, text=block, passages=ids)
    if affected:
        event["shortened_or_left_out"] = affected
    emit(event)
    return insert({**update, "trace": [*update.get("trace", []), event]}, settings, block), False


def _problem(
    state: State, settings: Settings, tag_format: TagFormat, view: DraftView, hit: str | None
) -> Problem | None:
    """Return why the last call of the judged tokens cannot get results; None if it can, or if there is no call."""
    calls = tag_format.new_calls(view.accepted, view.unit.text)
    if not calls:
        over = view.draft.ended == "end" and view.judged == len(view.draft)
        opened = tag_format.open_call(view.accepted + view.unit.text) is not None
        return "unclosed" if over and opened else None
    if hit is not None:
        return "limit"
    if not calls[-1].query:
        return "empty"
    # Shorten the query as `monitor` would before the search.
    query = last_words(calls[-1].query, settings.query_tokens, settings.generator.count_tokens)
    return "repeated" if asked_before(query, state.get("asked") or []) else None


def _with_notice(
    state: State, update: Update, settings: Settings, tag_format: TagFormat, problem: Problem
) -> tuple[Update, bool]:
    block, since = tag_format.notice(problem), None
    if problem == "unclosed":
        since = tag_format.open_call(update["text"], last_hidden(update))
        block = tag_format.call[1] + block
    full = settings.generator.count_tokens(block) > room_left(state, update, settings)
    event = InsertedEvent(type="inserted", problem=problem, text="" if full else block, passages=[])
    emit(event)
    update = {**update, "trace": [*update.get("trace", []), event]}
    return (update if full else insert(update, settings, block, since=since)), full
