"""One model call of an agent, watched: what happens between the request and the answer.

    write -> look at the answer -> (unsure) search -> write again with what was found -> ... -> the answer

The course of it is a generator that *says* what is to be done next (call the model, search, ask, compute) and is told
the outcome. It does nothing of it itself, so that the synchronous and the asynchronous middleware share all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.errors import GraphBubbleUp

from langgraph_dynrag.agents.answers import Need, Written, judge_answer, lacking, read_answer
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.record import Record, accepted, degraded, discarded, drafted, kept, record_of, told
from langgraph_dynrag.agents.requests import (
    answer_in,
    cleaned,
    generator_of,
    has_room,
    is_refusal,
    never_given,
    question_context,
    repeated_call,
    signal_settings,
    with_evidence,
)
from langgraph_dynrag.draft import Verdict
from langgraph_dynrag.drafting import DraftResult
from langgraph_dynrag.evidence import Passage, distinct
from langgraph_dynrag.generator import Generator as ModelGenerator
from langgraph_dynrag.nodes.resume import sources_with
from langgraph_dynrag.queries.base import Plan, last_words, plan_of, queries_of
from langgraph_dynrag.triggers.base import verdict_before

# ---------------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class CallModel:
    """Call the model; the outcome is its response."""

    request: ModelRequest[Any]
    hidden: bool
    """Whether its tokens stay out of the `messages` stream, because the answer may be discarded."""


@dataclass(frozen=True)
class Search:
    """Search for the record's queries; the outcome is an update of the record."""

    record: Record


@dataclass(frozen=True)
class Ask:
    """Have the model reply to some prompts; the outcome is the replies."""

    generator: ModelGenerator
    prompts: Sequence[str]


@dataclass(frozen=True)
class Compute:
    """Call a function that may compute for a while; the outcome is what it returns."""

    function: Callable[[], Any]


Task = CallModel | Search | Ask | Compute
Result = TypeVar("Result")
Course: TypeAlias = Generator[Task, Any, Result]


# ---------------------------------------------------------------------- the course


def watch(
    options: WatchOptions, request: ModelRequest[Any], known: Mapping[str, Any] | None
) -> Course[tuple[ModelResponse[Any], Record | None]]:
    """Answer a request, watched.

    Args:
        options: How.
        request: The agent's.
        known: The record of this thread, of this question or of an earlier one.

    Returns:
        The response, and the record if there is something new in it.

    Raises:
        SignalUnavailableError: If signals are missing and the options say that this is an error.
    """
    question = next((m for m in reversed(request.messages) if isinstance(m, HumanMessage)), None)
    if question is None or not question.text.strip():
        return (yield CallModel(request, hidden=False)), None
    before = record_of(question, known)
    record = yield from _before(options, request, before)
    generator = generator_of(request.model, options)
    earlier: _Answer | None = None
    for written in range(options.max_rounds + 1):
        over = record["retrievals"] >= options.max_searches
        last = over or written == options.max_rounds
        messages, affected = with_evidence(options, request, generator, record)
        prepared = request.override(messages=messages)
        try:
            response, record = yield from _write(options, prepared, record, last=last)
        except Exception as error:
            if earlier is None or not is_refusal(error):
                raise
            # It answered without the passages, so it is they that it does not take.
            reason = f"{type(request.model).__name__} refused the passages ({error})"
            return earlier.given(request, kept(record, reason))
        message = answer_in(response)
        if message is None and earlier is not None and (call := repeated_call(response, request)):
            # The call is answered already. Left alone, a small model makes it again and again.
            return earlier.given(request, kept(record, f"written again, it was another call of {call}"))
        if message is None:  # a tool call, which is left alone
            return cleaned(response, request), (None if record == before else record)
        answer = _Answer(response, message, read_answer(message, messages, options.trigger, options.needs))
        record = drafted(record, answer.read, affected)
        if over:
            record = told(record, {"type": "budget", "which": "searches", "limit": options.max_searches})
        if last or record["blind"]:
            return answer.given(request, record)
        needs, record = yield from _look(options, prepared, generator, record, answer.read)
        if not needs:
            return answer.given(request, record)
        present = {p["id"] for p in record["evidence"]}
        queries = yield from _queries(options, generator, needs)
        record = yield from _searched(options, record, queries)
        new = any(p["id"] not in present for p in record["evidence"])
        if not new or not has_room(options, request, generator, record):  # nothing to write it anew with
            return answer.given(request, record)
        record, earlier = discarded(record, answer.read), answer
    raise AssertionError("the last answer is not looked at, so it ends the loop")


@dataclass(frozen=True)
class _Answer:
    """An answer as it was written."""

    response: ModelResponse[Any]
    message: AIMessage
    read: DraftResult

    def given(self, request: ModelRequest[Any], record: Record) -> tuple[ModelResponse[Any], Record]:
        """It as the agent's, with the record of it."""
        return cleaned(self.response, request), accepted(record, self.message, self.read)


def _before(options: WatchOptions, request: ModelRequest[Any], record: Record) -> Course[Record]:
    """What is to be done before anything is written."""
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
    """Have the request answered, with signals if there is any use for them."""
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
    # It may be the log-probabilities that the model refuses, or the request as such: then this fails in the same way.
    response = yield CallModel(request, hidden=False)
    reason = f"{type(request.model).__name__} refused a call that asks for log-probabilities ({refused})"
    return response, degraded(options, record, reason, blind=True)


def _look(
    options: WatchOptions, request: ModelRequest[Any], generator: ModelGenerator, record: Record, read: DraftResult
) -> Course[tuple[list[Need], Record]]:
    """What the answer lacks."""
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
        written = Written(record["question"], read.draft, read.attention, context, alone)
        return judge_answer(written, options.trigger, options.carries_content)

    needs, verdict = yield Compute(judge)
    return needs, told(record, {"type": "verdict", "tokens": len(read.draft), **verdict.to_state()})


def _queries(options: WatchOptions, generator: ModelGenerator, needs: Sequence[Need]) -> Course[list[str]]:
    """What to search for, for all that is needed; the question if that is nothing."""
    queries: dict[str, None] = {}
    for need in needs:
        plan: Plan = yield Compute(partial(plan_of, options.query, need.view, need.verdict))
        found = plan.queries
        if plan.prompts:
            replies = yield Ask(generator, plan.prompts)
            found = (*found, *queries_of(options.query, need.view, need.verdict, replies))
        for query in found:
            queries.setdefault(last_words(query, options.query_tokens, generator.count_tokens))
        if len(queries) >= options.max_queries:
            break
    kept = [q for q in queries if q][: options.max_queries]
    return kept or [last_words(needs[0].view.question, options.query_tokens, generator.count_tokens)]


def _searched(options: WatchOptions, record: Record, queries: Sequence[str]) -> Course[Record]:
    """The record after a search, its evidence joined by what was found."""
    left = options.max_searches - record["retrievals"]
    update = yield Search({**record, "queries": list(queries)[:left]})
    found: list[Passage] = update["found"]
    return {
        **record,
        **{name: update[name] for name in ("seen", "asked", "retrievals", "identical")},
        # What was found last comes first: if there is no room for all, it is what is needed now.
        "evidence": distinct([*found, *record["evidence"]]),
        "sources": sources_with(record, found),
        "trace": [*record["trace"], *({**event, "node": "retrieve"} for event in update["trace"])],
    }
