"""Handling replies without new text: ask the model again, a bounded number of times, or end the run.

Used by `monitor`. Every such reply is recorded as a `no_text` event and logged.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.tasks import DraftResult, NoText
from langgraph_dynrag.events.events import Event, NoTextEvent, ReasoningEvent, RepetitionEvent
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.short_answer import answer_start, is_blank, last_phrase
from langgraph_dynrag.state import Replies, State, Update, spent
from langgraph_dynrag.steps.insert import visible
from langgraph_dynrag.streaming import emit
from rag_backbone.errors import NoAnswerError

logger = logging.getLogger(__name__)

_ENDS = ("no text", "only what was written")
"""Replies that end an answer already begun: the model has nothing to add."""


def counted(state: State, result: DraftResult, *, asked: bool) -> Replies:
    """Return the counts of the model's replies in this run, the last one included.

    Args:
        state: The state.
        result: The last reply.
        asked: Whether the model was called; False if the draft consists of carried tokens only.
    """
    known = state.get("replies") or Replies()
    opens = known.get("opens") if result.opens is None else result.opens
    fruitless = known.get("fruitless", 0)
    counts = Replies() if opens is None else Replies(opens=opens)
    counts["reasoning_tokens"] = known.get("reasoning_tokens", 0) + result.cost.get("reasoning_tokens", 0)
    counts["repetitions"] = known.get("repetitions", 0) + bool(result.repeated.strip())
    counts["fruitless"] = fruitless + 1 if result.problem else 0 if asked else fruitless
    counts["problem"] = result.problem
    return counts


def reply_events(result: DraftResult) -> list[Event]:
    """Emit and return the events for what a reply contained in addition to the draft."""
    events: list[Event] = []
    if tokens := result.cost.get("reasoning_tokens", 0):
        events.append(ReasoningEvent(type="reasoning", text=result.reasoning, tokens=tokens))
    if result.repeated.strip():
        events.append(RepetitionEvent(type="repetition", text=result.repeated))
    for event in events:
        emit(event)
    return events


def asked_again(state: State, settings: Settings, draft: Draft) -> tuple[Update | None, Draft, list[Event]]:
    """Decide what to do about a draft whose reply brought no new text.

    Args:
        state: The state.
        settings: The graph's settings.
        draft: The carried tokens.

    Returns:
        The update if the model is asked again, otherwise None; the draft to continue with; and the events to record.
    """
    replies = state.get("replies") or Replies()
    problem = replies.get("problem")
    if problem is None:
        return None, draft, []
    begun = bool(visible(state, settings).strip() or draft.text.strip())
    if problem in _ENDS and begun and state.get("stage") != "closing":
        events: list[Event] = [] if problem == "no text" else [_told(problem, replies, "taken as the answer's end")]
        return None, replace(draft, ended="end"), events
    in_time = spent(state) < settings.budgets.seconds
    if (
        replies["fruitless"] <= settings.budgets.fruitless_replies
        and in_time
        and not _sure_to_repeat(settings, problem)
    ):
        event = _told(problem, replies, "asked again")
        known: Replies = {**replies, "problem": None}
        return {"replies": known, "queries": [], "draft": draft.to_state(), "trace": [event]}, draft, []
    # Whatever limit ended the reply, asking again would bring no more.
    return None, replace(draft, ended="end"), [_told(problem, replies, "given up")]


def with_an_answer(update: Update, settings: Settings) -> Update:
    """Remove an answer phrase that nothing follows from the update.

    Raises:
        NoAnswerError: If nothing else was written.
    """
    phrase, end = settings.prompt.answer_phrase, settings.prompt.answer_end
    shown = visible(update, settings)
    start = None if phrase is None else answer_start(shown, phrase)
    if shown.strip() and (start is None or not is_blank(shown[start:], end)):
        return update
    before = update["text"]
    found = None if phrase is None else last_phrase(before, phrase)
    if start is not None and found is not None:
        before = before[: found.start()].rstrip()
    hidden = [[since, min(end_of, len(before))] for since, end_of in update["hidden"] if since < len(before)]
    update = {**update, "hidden": hidden}
    if not visible({**update, "text": before}, settings).strip():
        raise NoAnswerError(_advice(update, settings))
    logger.warning("the model wrote no short answer when asked for one explicitly; the text before it is the answer")
    outcome = "the text before it is the answer"
    event = NoTextEvent(type="no_text", problem="no short answer", reply=0, outcome=outcome)
    emit(event)
    ids = settings.generator.token_ids(before) if update["token_ids"] is not None else None
    known = None if ids is None else list(ids)
    return {**update, "text": before, "token_ids": known, "trace": [*update.get("trace", []), event]}


def _sure_to_repeat(settings: Settings, problem: str) -> bool:
    """Return whether the same request would get the same reply, as from a local model that wrote nothing."""
    return problem in _ENDS and settings.generator.token_ids("") is not None


def _told(problem: NoText, replies: Replies, outcome: str) -> NoTextEvent:
    event = NoTextEvent(type="no_text", problem=problem, reply=replies["fruitless"], outcome=outcome)
    logger.warning("a reply brought no new text (%s): %s", problem, outcome)
    emit(event)
    return event


def _advice(update: Update, settings: Settings) -> str:
    replies = update.get("replies") or Replies()
    told = "the model wrote no answer text"
    if replies.get("reasoning_tokens"):
        return (
            f"{told}: it produced {replies['reasoning_tokens']} tokens of reasoning, and "
            f"{settings.budgets.reasoning_tokens} are allowed. Use a larger Budgets(reasoning_tokens=...), or switch "
            "the model's reasoning off."
        )
    return (
        f"{told} in {settings.budgets.fruitless_replies + 1} replies or more, although it was asked for the short "
        "answer explicitly. Check what it replies to a plain question, and look at the events of the trace."
    )
