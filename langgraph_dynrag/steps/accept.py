"""Accepting drafted tokens into the answer, and ending the answer. Used by `monitor` and `resume`."""

from __future__ import annotations

import logging

from langchain_core.messages import AIMessage, AIMessageChunk

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.events.answer_warnings import answer_warnings
from langgraph_dynrag.events.events import (
    AnswerEvent,
    BudgetEvent,
    ClosingEvent,
    ExemplarEvent,
    RetrievalEvent,
    VerdictEvent,
    events_of,
)
from langgraph_dynrag.reader import Reader
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.short_answer import (
    answer_start,
    closing_lead,
    find_phrase,
    is_blank,
    is_complete,
    short_answer,
    through_answer,
)
from langgraph_dynrag.state import State, Update, spent
from langgraph_dynrag.steps.exemplar_facts import exemplar_facts
from langgraph_dynrag.steps.insert import last_hidden, own_words, visible, with_call_closed
from langgraph_dynrag.steps.no_text import with_an_answer
from langgraph_dynrag.streaming import emit, show

logger = logging.getLogger(__name__)


def accept(state: State, settings: Settings, draft: Draft, tokens: int, *, keep_rest: bool) -> Update:
    """Move the draft's first `tokens` tokens into the answer.

    Args:
        state: The state.
        settings: The graph's settings.
        draft: The draft, without its discarded tokens.
        tokens: Number of tokens to accept.
        keep_rest: Whether the tokens after them stay valid, which they do only if the prompt does not change.
    """
    taken, rest = draft[:tokens], draft[tokens:]
    prompt = settings.prompt
    before, own = state.get("text") or "", own_words(state)
    text = before + taken.text
    if prompt.answer_phrase is not None and answer_complete(own, draft, tokens, settings):
        # Small models ramble on after the answer; that text is not part of it.
        whole = own + taken.text
        rambling = len(whole) - len(through_answer(whole, prompt.answer_phrase, prompt.answer_end))
        text = text[: len(text) - rambling]
    hidden = [list(span) for span in state.get("hidden") or []]
    if settings.tag_format is not None:
        hidden += [list(span) for span in settings.tag_format.marked(text, last_hidden(state))]
    ids = state.get("token_ids")
    known = ids is not None and (taken.token_ids is not None or not len(taken))
    content = settings.carries_content(draft.words)
    entropies = [
        taken.entropies[t]
        for t in range(len(taken))
        if taken.entropies is not None and (w := draft.word_of_token[t]) is not None and content[w]
    ]
    attention = state.get("attention")
    carry = keep_rest and len(rest) > 0
    shown_before = visible(state, settings)
    shown = visible({"text": text, "hidden": hidden}, settings)[len(shown_before) :]
    _push(state, settings, shown_before, shown)
    return {
        "text": text,
        "hidden": hidden,
        "token_ids": [*(ids or []), *(taken.token_ids or ())] if known else None,
        "entropies": [*(state.get("entropies") or []), *entropies],
        "answer_tokens": (state.get("answer_tokens") or 0) + len(taken),
        "draft": rest.to_state() if carry else None,
        "attention": attention.shifted(tokens) if carry and attention is not None else None,
        "judged": 0,
        "verdict": None,
        "regenerating": False,
    }


def answer_complete(before: str, draft: Draft, tokens: int, settings: Settings) -> bool:
    """Return whether the short answer is complete within the first `tokens` tokens of a draft that follows `before`.

    Args:
        before: The model's own words so far.
        draft: The draft.
        tokens: Number of its tokens that count.
        settings: The graph's settings.
    """
    phrase, end = settings.prompt.answer_phrase, settings.prompt.answer_end
    written = before + draft[:tokens].text
    opened = None if settings.tag_format is None else settings.tag_format.open_call(written)
    if phrase is None or find_phrase(written[:opened], phrase) is None:  # a phrase inside a search does not count
        return False
    if end is not None:
        return is_complete(written[:opened], phrase, end)
    # The tokens that follow tell whether the sentence is complete; so does the end of the model's answer.
    return is_complete(before + draft.text + ("\n" if draft.ended == "end" else ""), phrase)


def after_acceptance(state: State, update: Update, settings: Settings, draft: Draft, tokens: int) -> Update:
    """End the answer if it is complete or a budget is used up; otherwise return the update unchanged.

    Args:
        state: The state before the update.
        update: The update that `accept` returned.
        settings: The graph's settings.
        draft: The draft, without its discarded tokens.
        tokens: Number of its tokens that were accepted.
    """
    if state.get("stage") == "closing":
        return _finished(state, with_an_answer({**update, "replies": state.get("replies") or {}}, settings), settings)
    if answer_complete(own_words(state), draft, tokens, settings):
        return _finished(state, update, settings)
    ended = draft.ended == "end" and tokens == len(draft)
    hit = None
    if not ended:
        if update["answer_tokens"] >= settings.budgets.tokens:
            hit = "tokens"
        elif spent(state) >= settings.budgets.seconds:
            hit = "seconds"
        if hit is None:
            return update
    if hit is not None:
        update = {**update, "budget_hit": hit, "trace": [*update.get("trace", []), budget_event(hit, settings)]}
    return force_answer(state, update, settings, model_ended=hit is None)


def force_answer(state: State, update: Update, settings: Settings, *, model_ended: bool = False) -> Update:
    """End the answer or, if the short answer is missing, ask for it explicitly.

    Args:
        state: The state before the update.
        update: The update that `accept` returned.
        settings: The graph's settings.
        model_ended: Whether the model ended the answer itself; if not, a short answer that was begun is completed.
    """
    if isinstance(settings.final_answer, Reader):  # it writes its own short answer
        return _finished(state, update, settings)
    phrase = settings.prompt.answer_phrase
    shown = visible(update, settings)
    if phrase is None:
        return _finished(state, with_an_answer({**update, "replies": state.get("replies") or {}}, settings), settings)
    start = answer_start(shown, phrase)
    complete = start is not None and model_ended and not is_blank(shown[start:], settings.prompt.answer_end)
    if complete or (start is not None and is_complete(shown, phrase, settings.prompt.answer_end)):
        return _finished(state, update, settings)
    return _closing(state, update, settings, "" if start is not None else phrase)


def answered_with(state: State, settings: Settings, short: str, event: VerdictEvent) -> Update:
    """End with a short answer of the trigger's after the accepted text; the draft is dropped, nothing is compared.

    Args:
        state: The state.
        settings: The graph's settings.
        short: The short answer.
        event: The verdict that asked for it.
    """
    update = accept(state, settings, Draft(), 0, keep_rest=False)
    update["trace"], update["queries"] = [event], []
    phrase = settings.prompt.answer_phrase
    if phrase is not None:
        begun = answer_start(visible(update, settings), phrase) is not None
        update = _closing(state, update, settings, "" if begun else phrase)
    text = f"{update['text']} {short}".lstrip()
    _push(state, settings, visible(update, settings), text[len(update["text"]) :])
    return finish(state, {**update, "text": text, "token_ids": None}, settings, short=short)


def budget_event(which: str, settings: Settings, limit: float | None = None) -> BudgetEvent:
    """Emit and return the event that records an exhausted budget; `limit` if it is not one of `settings.budgets`."""
    event = BudgetEvent(type="budget", which=which, limit=getattr(settings.budgets, which) if limit is None else limit)
    emit(event)
    return event


def _closing(state: State, update: Update, settings: Settings, phrase: str) -> Update:
    """Ask for the short answer explicitly: write the answer phrase for the model to complete.

    Args:
        state: The state before the update.
        update: The update that `accept` returned.
        settings: The graph's settings.
        phrase: The phrase to write; empty if the text already has it with an incomplete answer.
    """
    update = with_call_closed(update, settings)
    # An inserted block keeps the end that its format gives it; only white space that the model wrote is cut.
    fixed = last_hidden(update)
    begun = update["text"][:fixed] + update["text"][fixed:].rstrip()
    seen = visible({**update, "text": begun}, settings)
    if len(begun) == fixed and seen and seen[-1].isspace():
        lead = closing_lead(seen.rstrip(), phrase).lstrip(" ") if phrase else ""
    else:
        lead = closing_lead(seen, phrase) if phrase else ""
    ids = update["token_ids"]
    if ids is not None and begun == update["text"]:
        ids = [*ids, *(settings.generator.token_ids(lead) or ())]
    elif ids is not None:  # white space was cut off, so the ids no longer match the text
        fresh = settings.generator.token_ids(begun + lead)
        ids = None if fresh is None else list(fresh)
    _push(state, settings, seen, lead)
    event = ClosingEvent(type="closing", text=lead)
    return {
        **update,
        "text": begun + lead,
        "token_ids": ids,
        "draft": None,
        "attention": None,
        "stage": "closing",
        "trace": [*update.get("trace", []), event],
    }


def _finished(state: State, update: Update, settings: Settings) -> Update:
    """End with the answer that was written, or let `conclude` write another one first."""
    if settings.final_answer is None:
        return finish(state, update, settings)
    return {**update, "draft": None, "attention": None, "stage": "concluding"}


def finish(state: State, update: Update, settings: Settings, *, short: str | None = None) -> Update:
    """End with the update's text as the answer.

    Args:
        state: The state before the update.
        update: An update with `text`, `hidden`, and the node's `trace` so far.
        settings: The graph's settings.
        short: The short answer, if it is known; None: the text after the answer phrase.
    """
    answer = visible(update, settings).strip()
    if short is None:
        short = short_answer(answer, settings.prompt.answer_phrase, settings.prompt.answer_end)
    update = _with_leaks_noted(state, update, settings, answer, short)
    event = AnswerEvent(type="answer", answer=answer, short_answer=short)
    told = answer_warnings([*(state.get("trace") or []), *update.get("trace", [])])
    emit({**event, "sources": state.get("sources") or [], "warnings": told})
    about = {"short_answer": short} | ({"warnings": told} if told else {})
    message = AIMessage(answer, id=message_id(state), response_metadata={"dynprag": about})
    return {
        **update,
        "answer": answer,
        "short_answer": short,
        "warnings": told,
        "draft": None,
        "attention": None,
        "stage": "done",
        "messages": [message],
        "trace": [*update.get("trace", []), event],
    }


def _with_leaks_noted(state: State, update: Update, settings: Settings, answer: str, short: str) -> Update:
    """Record facts in the answer that come from a worked example and from nowhere else."""
    searches = events_of([*(state.get("trace") or []), *update.get("trace", [])], RetrievalEvent)
    passages = [*(state.get("evidence") or []), *(document for search in searches for document in search["documents"])]
    known = [state.get("question") or "", *(f"{p['title']} {p['text']}" for p in passages)]
    leaked = exemplar_facts(answer, short, settings.prompt.exemplars, known, settings.carries_content)
    if not leaked:
        return update
    told = (
        f"the answer contains {', '.join(map(repr, leaked))} from a worked example of the prompt; neither the question "
        "nor any retrieved passage does"
    )
    logger.warning("%s", told)
    event = ExemplarEvent(type="exemplar", facts=leaked, warning=told)
    return {**update, "trace": [*update.get("trace", []), event]}


def message_id(state: State) -> str:
    """Return the id of the answer's message; the chunks streamed while it is written share this id."""
    return f"dynrag-{state.get('run_id')}"


def _push(state: State, settings: Settings, before: str, text: str) -> None:
    """Show text that follows `before` in LangGraph's `messages` stream, as a chunk of the final message."""
    if not before.strip():  # the final message has no leading white space
        text = text.lstrip()
    if text and settings.final_answer is None:  # otherwise another text may become the answer, so nothing is streamed
        show(AIMessageChunk(content=text, id=message_id(state)))
