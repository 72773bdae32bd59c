"""The steps between an agent's request and its answer when the model call is watched.

    write -> judge the answer -> (unsure) search -> rewrite with the evidence -> ... -> the answer

Each model call is a separate pass through the agent's loop, so that other middleware sees and limits it like any other
call: an answer that will be rewritten is withheld (`Paused`), an empty message replaces it, and after the pass the
agent is sent back to the model. If another middleware ends the agent first, the withheld answer is returned.

A pass is a generator that yields the next task (call the model, search, compute) and receives its outcome. It performs
no task itself, so that the synchronous and the asynchronous middleware share all of it; and it mutates nothing that it
was given, so that an outer middleware may repeat a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from langgraph_dynrag.agents.judged_answer import Need, WatchedAnswer, judge_answer, lacking, read_answer
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.query_writer import Asking
from langgraph_dynrag.agents.record import (
    Record,
    accepted,
    degraded,
    discarded,
    drafted,
    is_about,
    kept,
    record_of,
    told,
)
from langgraph_dynrag.agents.requests import (
    answer_in,
    asking_request,
    cleaned,
    generator_of,
    has_room,
    is_refusal,
    never_given,
    question_context,
    question_of_request,
    repeated_call,
    signal_settings,
    usage_of,
    with_evidence,
    with_usage,
)
from langgraph_dynrag.drafts.draft import Verdict
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.events.events import BudgetEvent, CallsEvent
from langgraph_dynrag.events.makers import verdict_event
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import distinct
from langgraph_dynrag.generators.protocols import Generator as ModelGenerator
from langgraph_dynrag.nodes.resume import sources_with
from langgraph_dynrag.queries.base import QueryPlan, plan_of
from langgraph_dynrag.reasoning import answer_text
from langgraph_dynrag.state import DynamicRAGState
from langgraph_dynrag.triggers.base import verdict_before

# ---------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class CallModel:
    """Call the model; the outcome is its response."""

    request: ModelRequest[Any]
    hidden: bool
    """Whether to keep the tokens out of the `messages` stream, because the answer may be discarded."""


@dataclass(frozen=True)
class Search:
    """Search for the state's queries; the outcome is a state update."""

    state: DynamicRAGState


@dataclass(frozen=True)
class Compute:
    """Call a function that may take long; the outcome is its return value."""

    function: Callable[[], Any]


Task = CallModel | Search | Compute
Result = TypeVar("Result")
Course: TypeAlias = Generator[Task, Any, Result]


# ---------------------------------------------------------------------- the course


@dataclass(frozen=True)
class Answer:
    """An answer as the model wrote it."""

    response: ModelResponse[Any]
    message: AIMessage
    read: DraftResult

    def given(self, request: ModelRequest[Any], record: Record, usage: Usage) -> Given:
        """Return this answer as the agent's, with its record and the usage of all calls that led to it."""
        response = with_usage(cleaned(self.response, request), usage)
        return Given(response, accepted(record, self.message, self.read))


@dataclass(frozen=True)
class Given:
    """The end of a pass: a response for the agent."""

    response: ModelResponse[Any]
    record: Record | None
    """None if the record has not changed."""


@dataclass(frozen=True, repr=False)
class Paused:
    """The end of a pass after which the agent's next pass calls the model again for the same answer.

    Lives in the agent's state for one run and is never saved: a run that is resumed from a checkpoint starts the answer
    over, with the evidence found so far.
    """

    record: Record
    earlier: Answer
    response: ModelResponse[Any]
    """The response to return if the agent ends here."""
    usage: Usage
    """Usage of all calls for this answer so far."""
    written: int
    """Number of rewrites so far."""
    asking: Asking | None = None
    """Queries that the model is asked for next; None if the next call rewrites the answer."""

    def given(self, reason: str) -> Given:
        """Return the withheld answer as the agent's, for the given reason."""
        warning = f"the answer was unsure and was not rewritten: {reason}"
        record = accepted(kept(self.record, reason, warning), self.earlier.message, self.earlier.read)
        return Given(with_usage(self.response, self.usage), record)

    def __repr__(self) -> str:
        return f"<answer withheld: {self.earlier.read.draft.text[:40]!r}>"


def watch_call(
    options: WatchOptions, request: ModelRequest[Any], known: Record | None, paused: Paused | None = None
) -> Course[Given | Paused]:
    """Answer an agent's request and watch the answer.

    Args:
        options: How to watch it.
        request: The agent's request.
        known: The thread's record, which is about this question or an earlier one.
        paused: The end of the previous pass, if that was for this answer.

    Returns:
        The response, or the point from which the next pass continues.

    Raises:
        SignalUnavailableError: If signals are missing and `on_missing_signals` is `"raise"`.
    """
    question = question_of_request(request.messages)
    if question is None:
        return Given((yield CallModel(request, hidden=False)), None)
    before = record_of(question, known)
    generator = generator_of(request.model, options)
    if paused is None or not is_about(paused.record, question):
        record = yield from _before(options, request, before)
        return (yield from _answered(options, request, generator, before, record, None))
    if paused.asking is None:
        return (yield from _answered(options, request, generator, before, paused.record, paused))
    reply = yield CallModel(asking_request(request, paused.asking.prompts[0]), hidden=True)
    message = reply.result[0]
    usage = Usage.of(message)
    paused = replace(
        paused,
        record=told(paused.record, CallsEvent(type="calls", usage=usage.to_state())),
        usage=paused.usage + usage,
        asking=paused.asking.answered(answer_text(message)),
    )
    return (yield from _search_and_pause(options, request, generator, paused))


def _answered(
    options: WatchOptions,
    request: ModelRequest[Any],
    generator: ModelGenerator,
    before: Record,
    record: Record,
    paused: Paused | None,
) -> Course[Given | Paused]:
    """Have the answer written or rewritten, and judge it."""
    written = 0 if paused is None else paused.written
    over = record["retrievals"] >= options.max_searches
    last = over or written == options.max_rounds
    messages, affected = with_evidence(options, request, generator, record)
    prepared = request.override(messages=messages)
    try:
        response, record = yield from _write(options, prepared, record, last=last)
    except Exception as error:
        if paused is None or not is_refusal(error):
            raise
        # The model answered without the passages, so it must be the passages that it refuses.
        reason = f"{type(request.model).__name__} refused the passages ({error})"
        return paused.earlier.given(request, kept(record, reason), paused.usage)
    usage = (Usage() if paused is None else paused.usage) + usage_of(response)
    message = answer_in(response)
    if message is None and paused is not None and (call := repeated_call(response, request)):
        # This call has been answered already. If it were let through, a small model would repeat it endlessly.
        return paused.earlier.given(request, kept(record, f"the rewrite was a repeated call of {call}"), usage)
    if message is None:  # a tool call, which is left alone
        return Given(with_usage(cleaned(response, request), usage), None if record == before else record)
    answer = Answer(response, message, read_answer(message, messages, options.trigger, options.needs))
    record = drafted(record, answer.read, affected, usage_of(response))
    if over:
        record = told(record, BudgetEvent(type="budget", which="searches", limit=options.max_searches))
    if last or record["blind"]:
        return answer.given(request, record, usage)
    needs, record = yield from _look(options, prepared, generator, record, answer.read)
    if not needs:
        return answer.given(request, record, usage)
    asking = yield from _asking(options, needs)
    found = Paused(record, answer, cleaned(response, request), usage, written, asking)
    return (yield from _search_and_pause(options, request, generator, found))


def _search_and_pause(
    options: WatchOptions, request: ModelRequest[Any], generator: ModelGenerator, paused: Paused
) -> Course[Given | Paused]:
    """Search once no prompts are left for the model, and pause if there is new evidence to rewrite the answer with."""
    assert paused.asking is not None
    if paused.asking.prompts:
        return paused
    record, answer, usage = paused.record, paused.earlier, paused.usage
    present = {p["id"] for p in record["evidence"]}
    record = yield from _searched(options, record, paused.asking.queries(options, generator.count_tokens))
    new = any(p["id"] not in present for p in record["evidence"])
    if not new or not has_room(options, request, generator, record):  # nothing to rewrite it with
        return answer.given(request, record, usage)
    record = discarded(record, answer.read)
    return replace(paused, record=record, written=paused.written + 1, asking=None)


def _before(options: WatchOptions, request: ModelRequest[Any], record: Record) -> Course[Record]:
    """Check which signals are available, and search first if the trigger asks for it."""
    missing = yield Compute(lambda: never_given(request.model, options))
    if missing and not record["blind"]:
        reason = f"{type(request.model).__name__} cannot give {', '.join(missing)}"
        record = degraded(options, record, reason, blind=True)
    verdict = verdict_before(options.trigger, record["question"])
    if verdict is None or not verdict.retrieve or record["retrievals"]:
        return record
    return (yield from _searched(options, record, [record["question"]]))


def _write(
    options: WatchOptions, request: ModelRequest[Any], record: Record, *, last: bool
) -> Course[tuple[ModelResponse[Any], Record]]:
    """Have the request answered, with signals if they are of use."""
    if record["blind"]:
        return (yield CallModel(request, hidden=False)), record
    asked = request.override(model_settings=signal_settings(options, request))
    try:
        return (yield CallModel(asked, hidden=options.drafts == "hidden" and not last)), record
    except GraphBubbleUp:
        raise
    except Exception as error:
        if not is_refusal(error) or asked.model_settings == request.model_settings:
            raise
        refused = error
    # The model refuses either the log-probabilities or the request itself; in the latter case this fails the same way.
    response = yield CallModel(request, hidden=False)
    reason = f"{type(request.model).__name__} refused a call that asks for log-probabilities ({refused})"
    return response, degraded(options, record, reason, blind=True)


def _look(
    options: WatchOptions, request: ModelRequest[Any], generator: ModelGenerator, record: Record, read: DraftResult
) -> Course[tuple[list[Need], Record]]:
    """Judge the answer; return the pieces that need information, and the record with the verdict."""
    if not len(read.draft):
        return [], record
    if missing := lacking(read, options.needs):
        reason = f"{type(request.model).__name__} reported no {' and no '.join(missing)} with an answer"
        return [], degraded(options, record, reason)

    def judge() -> tuple[list[Need], Verdict]:
        context = None
        if "attention" in options.needs:
            context = question_context(request, record["question"])
        alone = generator.attend_alone if "attention_alone" in options.needs else None
        written = WatchedAnswer(record["question"], read.draft, read.attention, context, alone)
        return judge_answer(
            written,
            options.trigger,
            options.carries_content,
            getattr(options.retriever, "document_frequency", None),
        )

    needs, verdict = yield Compute(judge)
    return needs, told(record, verdict_event(verdict, len(read.draft)))


def _asking(options: WatchOptions, needs: Sequence[Need]) -> Course[Asking]:
    """Plan the queries for all needs, up to `max_queries`; prompts for the model are collected, not sent."""
    plans: list[tuple[Need, QueryPlan]] = []
    for need in needs:
        plans.append((need, (yield Compute(partial(plan_of, options.query, need.view, need.verdict)))))
        if sum(len(plan.queries) + len(plan.prompts) for _, plan in plans) >= options.max_queries:
            break
    return Asking(options.query, tuple(plans))


def _searched(options: WatchOptions, record: Record, queries: Sequence[str]) -> Course[Record]:
    """Search, and return the record with the passages found added to its evidence."""
    left = options.max_searches - record["retrievals"]
    state = DynamicRAGState(
        queries=list(queries)[:left],
        evidence=record["evidence"],
        seen=record["seen"],
        asked=record["asked"],
        retrievals=record["retrievals"],
        identical=record["identical"],
    )
    update: DynamicRAGState = yield Search(state)
    found, told_of = update["found"], update["trace"]
    for event in told_of:
        event["node"] = "retrieve"
    return {
        **record,
        "seen": update["seen"],
        "asked": update["asked"],
        "retrievals": update["retrievals"],
        "identical": update["identical"],
        # The latest passages come first: if there is not room for all, they are the ones needed now.
        "evidence": distinct([*found, *record["evidence"]]),
        "sources": sources_with(record["sources"], found),
        "trace": [*record["trace"], *told_of],
    }
