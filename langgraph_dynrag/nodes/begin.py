"""`begin`: take the question, reject what cannot be answered, and clear the state of an earlier question."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from langgraph_dynrag.events.events import CondensedEvent, Event, NotTextEvent, QuestionEvent, RouteEvent
from langgraph_dynrag.inputs.conversation import message_parts, not_text_warning, system_text
from langgraph_dynrag.inputs.validation import check_question
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import VERSION, Answered, AnyState, State, Update
from langgraph_dynrag.steps.classify import aclassify, classify
from langgraph_dynrag.steps.condense import REPLY_TOKENS, prepared
from langgraph_dynrag.streaming import emit
from langgraph_dynrag.triggers.base import verdict_before
from rag_backbone.aio import in_own_thread
from rag_backbone.errors import ConfigurationError, ContextWindowError
from rag_backbone.text.unicode import clean_text

_log = logging.getLogger(__name__)


class Begin(Node):
    """Starts a run. It is the first node, followed by `generate` or, with an initial retrieval, by `retrieve`."""

    node_name = "begin"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Return a fresh state for the question.

        Raises:
            ConfigurationError: If there is no question.
            ContextWindowError: If the question and the prompt leave no room for an answer.
        """
        asked = _asked(state, settings)
        call = prepared(asked.question, asked.earlier, settings)
        if call is not None and call.prompt is not None:
            with call:
                call.reply = settings.generator.reply(call.prompt, config, max_tokens=REPLY_TOKENS)
        condensed = None if call is None else call.event()
        route = classify(_question(asked, condensed), settings, config)
        return _update(asked, condensed, route, settings)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Do the same as `run`, with the work around the model call in threads.

        Asking a local model for its context window or its tokenizer loads the model.
        """
        asked = _asked(state, settings)
        call = await in_own_thread(prepared, asked.question, asked.earlier, settings)
        if call is not None and call.prompt is not None:
            with call:
                call.reply = await settings.generator.areply(call.prompt, config, max_tokens=REPLY_TOKENS)
        condensed = None if call is None else call.event()
        route = await aclassify(_question(asked, condensed), settings, config)
        return await in_own_thread(_update, asked, condensed, route, settings)

    def _for(self, state: State) -> Settings:
        # The state's route belongs to an earlier question of the thread.
        return super()._for({**state, "route": None})


class _Asked(NamedTuple):
    """The question of this run, and what came with it."""

    question: str
    message_id: str | None
    earlier: Sequence[BaseMessage]
    """Messages before the one that holds the question; empty if the question did not come in a message."""
    system: str
    warning: str | None


def _asked(state: State, settings: Settings) -> _Asked:
    question, message_id = asked_question(state)
    question = clean_text(question, "the question")  # in a custom graph, this is where user input enters
    messages: list[AnyMessage] = state.get("messages") or []
    last = messages[-1] if messages else None
    in_message = isinstance(last, HumanMessage) and message_parts(last).text.strip() == question
    warning = not_text_warning(messages[-1:] if settings.condense is None else messages) if in_message else None
    if not question:
        told = "" if warning is None else f" ({warning})"
        raise ConfigurationError(
            f'the question is empty{told}; give one as {{"question": "..."}} or as the last human message of "messages"'
        )
    return _Asked(question, message_id, messages[:-1] if in_message else (), system_text(messages), warning)


def _question(asked: _Asked, condensed: CondensedEvent | None) -> str:
    return asked.question if condensed is None else condensed["question"]


def _update(asked: _Asked, condensed: CondensedEvent | None, route: RouteEvent | None, settings: Settings) -> Update:
    question = _question(asked, condensed)
    settings = settings.routed(None if route is None else route["route"])
    _check_room(question, settings.with_system(asked.system))
    verdict = verdict_before(settings.trigger, question)
    retrieve = settings.initial_retrieval or (verdict is not None and verdict.retrieve)
    reason = "initial retrieval" if settings.initial_retrieval else (verdict.reason if verdict else "")
    retrieve = retrieve and settings.budgets.retrievals > 0
    event = QuestionEvent(type="question", question=question)
    if retrieve:
        event["reason"] = reason
    if settings.preset:
        event["preset"] = settings.preset
    events: list[Event] = [event]
    if condensed is not None:
        events.append(condensed)
    if route is not None:
        events.append(route)
    if asked.warning is not None:
        _log.warning("%s", asked.warning)
        events.append(NotTextEvent(type="not_text", warning=asked.warning))
    for told in events:
        emit(told)
    return {
        "question": question,
        "answered": {"question": question, "message_id": asked.message_id},
        "answer": "",
        "short_answer": "",
        "sources": [],
        "warnings": [],
        "route": None if route is None else route["route"],
        "system": asked.system,
        "text": "",
        "token_ids": None if settings.generator.token_ids("") is None else [],
        "entropies": [],
        "hidden": [],
        "notices": 0,
        "answer_tokens": 0,
        "draft": None,
        "judged": 0,
        "verdict": None,
        "queries": [question] if retrieve else [],
        "found": [],
        "evidence": [],
        "asked": [],
        "seen": [],
        "rewrites": 0,
        "replies": {},
        "retrievals": 0,
        "identical": 0,
        "regenerating": False,
        "beam": None,
        "stage": "drafting",
        "budget_hit": None,
        "seconds": {},
        "run_id": uuid.uuid4().hex,
        "version": VERSION,
        "trace": cast("list[Event]", Overwrite(events)),
    }


def after_begin(state: AnyState) -> Literal["retrieve", "generate"]:
    """Route to `retrieve` if there are queries, otherwise to `generate`."""
    return "retrieve" if state["queries"] else "generate"


def asked_question(state: State) -> tuple[str, str | None]:
    """Return the question of this run, and the id of the message that holds it.

    On a thread that has answered before, the state still holds the previous question. A new human message or a new
    `question` takes precedence over it.
    """
    answered = state.get("answered") or Answered(question="", message_id=None)
    check_question(state.get("question"))
    explicit = (state.get("question") or "").strip()
    messages: list[AnyMessage] = state.get("messages") or []
    last = messages[-1] if messages else None
    # Only a thread assigns ids to messages, so a message without one belongs to this call.
    if isinstance(last, HumanMessage) and (last.id is None or last.id != answered["message_id"]):
        text = message_parts(last).text.strip()
        if not explicit or explicit == answered["question"] or explicit == text:
            return text, last.id
    return explicit, None


def _check_room(question: str, settings: Settings) -> None:
    window = settings.generator.context_window
    if window is None:
        return
    prompt = settings.generator.prompt_tokens(settings.prompt.messages(question, ()))
    answer = settings.budgets.tokens + settings.budgets.closing_tokens
    if prompt + answer > window:
        raise ContextWindowError(
            f"the question has {settings.generator.count_tokens(question)} tokens; with instructions and exemplars the "
            f"prompt has {prompt}, and {answer} are kept for the answer, but the model's context window is {window}. "
            "Shorten the question, or use fewer exemplars or a smaller token budget."
        )
