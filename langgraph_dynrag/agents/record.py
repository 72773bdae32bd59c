"""The record of the question that an agent is answering: searches, passages and trace, as plain data.

It lives in the agent's state, is replaced when another question is asked, and can be read by `Trace.from_state`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_core.messages import AIMessage, HumanMessage
from typing_extensions import TypedDict

from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.events.answer_warnings import answer_warnings
from langgraph_dynrag.events.events import (
    AcceptedEvent,
    AnswerEvent,
    DegradedEvent,
    Event,
    KeptEvent,
    QuestionEvent,
    ResumeEvent,
)
from langgraph_dynrag.events.makers import draft_event, with_cost
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import Passage, Source
from langgraph_dynrag.reasoning import answer_text
from langgraph_dynrag.steps.no_text import reply_events
from langgraph_dynrag.streaming import emit
from rag_backbone.errors import SignalUnavailableError

logger = logging.getLogger(__name__)


class Record(TypedDict):
    """The searches, evidence, answer and trace of one question."""

    question: str
    message_id: str | None
    answer: str
    short_answer: str
    sources: list[Source]
    warnings: list[str]
    evidence: list[Passage]
    """Passages that the answer is written with."""
    seen: list[str]
    """Ids of all passages that were found."""
    asked: list[str]
    """All queries that were searched for."""
    retrievals: int
    identical: int
    """Number of searches that repeated an earlier one."""
    rounds: int
    """Number of answers that were discarded."""
    blind: bool
    """Set when the model provides no signals, for the rest of this question."""
    trace: list[Event]


def record_of(question: HumanMessage, known: Record | None) -> Record:
    """Return a copy of the known record if it is about this question, else a new record."""
    asked = question.text.strip()
    if known and is_about(known, question):
        return known.copy()
    return {
        "question": asked,
        "message_id": question.id,
        "answer": "",
        "short_answer": "",
        "sources": [],
        "warnings": [],
        "evidence": [],
        "seen": [],
        "asked": [],
        "retrievals": 0,
        "identical": 0,
        "rounds": 0,
        "blind": False,
        "trace": [QuestionEvent(type="question", question=asked)],
    }


def is_about(record: Record, question: HumanMessage) -> bool:
    """Return whether a record is about this question: the same message with the same text."""
    return (record.get("message_id"), record.get("question")) == (question.id, question.text.strip())


def told(record: Record, event: Event) -> Record:
    """Return the record with an event appended; the event is also sent to the stream."""
    emit(event)
    return {**record, "trace": [*record["trace"], event]}


def drafted(record: Record, read: DraftResult, affected: Sequence[str], usage: Usage) -> Record:
    """Return the record with a draft event for an answer; `affected` lists the passages that were cut or left out."""
    event = draft_event(read.draft, carried=0, evidence=[p["id"] for p in record["evidence"]])
    event["usage"] = usage.to_state()
    event = with_cost(event, read.cost)
    if affected:
        event["shortened_or_left_out"] = list(affected)
    if read.problem is not None:
        logger.warning("an answer has no text (%s)", read.problem)
        event["problem"] = read.problem
    record = {**record, "trace": [*record["trace"], *reply_events(read)]}
    return told(record, event)


def discarded(record: Record, read: DraftResult) -> Record:
    """Return the record with that answer discarded, as a further round."""
    event = ResumeEvent(
        type="resume",
        kept="",
        kept_tokens=0,
        discarded=read.draft.text,
        discarded_tokens=len(read.draft),
        evidence=[p["id"] for p in record["evidence"]],
    )
    return {**told(record, event), "rounds": record["rounds"] + 1}


def accepted(record: Record, message: AIMessage, read: DraftResult) -> Record:
    """Return the record with that answer accepted."""
    record = told(record, AcceptedEvent(type="accepted", text=read.draft.text, tokens=len(read.draft)))
    answer = answer_text(message).strip()
    record = told(record, AnswerEvent(type="answer", answer=answer, short_answer=answer))
    told_of = answer_warnings(record["trace"])
    return {**record, "answer": answer, "short_answer": answer, "warnings": told_of}


def kept(record: Record, reason: str, warning: str | None = None) -> Record:
    """Return the record with the reason why a discarded answer is returned after all; log the warning, if any."""
    event = KeptEvent(type="kept", reason=reason)
    if warning is not None:
        logger.warning("%s", warning)
        event["warning"] = warning
    return told(record, event)


def degraded(options: WatchOptions, record: Record, reason: str, *, blind: bool = False) -> Record:
    """Return the record with the reason why an answer was not watched.

    Args:
        options: The options; `on_missing_signals` says whether this is an error.
        record: The record.
        reason: What is missing.
        blind: Whether it will be missing for the rest of this question.

    Raises:
        SignalUnavailableError: If `on_missing_signals` is `"raise"`.
    """
    if options.on_missing_signals == "raise":
        raise SignalUnavailableError(
            f"{reason}, which {options.trigger} with {options.query} needs. Use a model that reports it "
            "(LocalChatModel, ChatOpenAI, vLLM), or on_missing_signals='continue' to answer unwatched."
        )
    warning = f"an answer was not watched: {reason}"
    logger.warning("%s", warning)
    event = DegradedEvent(type="degraded", reason=reason, warning=warning)
    return {**told(record, event), "blind": record["blind"] or blind}
