"""Ask a graph questions, several at a time, and measure answers, evidence and cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from langgraph_dynrag.evaluation.deadline import Deadline
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from langgraph_dynrag.evaluation.records import Records, key_of
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.seakr.uncertainty import total_cost
from rag_backbone.metrics import contains, exact_match, f1
from rag_backbone.notices import NOTICE

logger = logging.getLogger(__name__)

Graph = CompiledStateGraph[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One question under one configuration."""

    about: dict[str, Any]
    """Everything that the result depends on."""
    question: EvaluationQuestion
    build: Callable[[], Graph]

    @property
    def key(self) -> str:
        """The key of its record."""
        return key_of(self.about)


OnFailure = Callable[[Job, Exception], None]


def run(
    jobs: Sequence[Job],
    records: Records,
    deadline: Deadline,
    sessions: int,
    *,
    on_done: Callable[[], object] = lambda: None,
    on_success: Callable[[], None] = lambda: None,
    on_failure: OnFailure | None = None,
) -> bool:
    """Ask all questions that have no record yet, in order, `sessions` at a time.

    Several sessions of a local model share the engine's forward passes, so their seconds are not those of a single
    session; the answers are the same.

    Args:
        jobs: The questions.
        records: Where finished questions are kept.
        deadline: When to stop; questions in progress are finished.
        sessions: Number of questions in progress at a time.
        on_done: Called in this thread after each question that was asked.
        on_success: Called, in the thread of the question, when its record was kept.
        on_failure: Called, in the thread of the question, if one fails; what it raises ends the run. By default the
            failure itself does.

    Returns:
        True if all were asked, False if the deadline passed first.
    """

    def one(job: Job) -> bool:
        if deadline.over:
            return False
        try:
            record = ask(job.build(), job.question)
        except Exception as error:
            if on_failure is None:
                raise
            on_failure(job, error)
        else:
            records.put(job.key, job.about, record)
            on_success()
        return True

    complete = True
    with ThreadPoolExecutor(sessions, "dynprag-evaluate") as pool:
        try:
            asked: list[Future[bool]] = [pool.submit(one, job) for job in jobs if records.get(job.key) is None]
            for future in as_completed(asked):
                finished = future.result()
                complete &= finished
                if finished:
                    on_done()
        except BaseException:
            logger.info("ending; questions in progress are finished first, and kept", extra=NOTICE)
            deadline.stop()  # the pool waits for its threads, which otherwise would ask all remaining questions
            raise
    return complete


def ask(graph: Graph, question: EvaluationQuestion) -> dict[str, Any]:
    """Ask a question, and measure answer, evidence and cost.

    Returns:
        The record: answers and scores (None without correct answers, or without known supporting passages), numbers of
        searches and tokens, and seconds. `read_tokens` counts each prompt in full, whether it was cached or not.
    """
    started = time.perf_counter()
    out = graph.invoke({"question": question.text})
    seconds = time.perf_counter() - started
    events = out["trace"]
    drafts = [e for e in events if e["type"] == "draft"]
    searches = [e for e in events if e["type"] == "retrieval"]
    failed = [e["error"] for e in searches if e["error"]]
    found = {d["id"]: d for e in searches for d in e["documents"]}
    short, usage = out["short_answer"], Usage.of_events(events)
    scored = bool(question.answers)
    written = sum(len(e["pieces"]) - e["carried"] for e in drafts) + sum(e.get("generated_tokens", 0) for e in events)
    return {
        "answer": out["answer"],
        "short_answer": short,
        "em": exact_match(short, question.answers) if scored else None,
        "f1": f1(short, question.answers) if scored else None,
        "contains": contains(out["answer"], question.answers) if scored else None,
        "recall": recall(question, list(found.values())),
        "answer_found": any(contains(f"{d['title']} {d['text']}", question.answers) for d in found.values()),
        "found": len(found),
        "given_up": any("warning" in e for e in events if e["type"] == "verdict"),
        "contexts": [d["text"] for d in found.values()],
        "retrievals": len(searches),
        "nothing_new": sum(1 for e in searches if not any(d["new"] for d in e["documents"])),
        "failed_searches": len(failed),
        "search_error": failed[0] if failed else None,
        "generated_tokens": written,
        "sampled_tokens": total_cost([e["cost"] for e in events if isinstance(e.get("cost"), dict)]).get("tokens", 0),
        "forward_tokens": sum(e.get("forward_tokens", 0) for e in events),
        "prompt_tokens": max((e.get("prompt_tokens", 0) for e in drafts), default=0),
        "read_tokens": sum(map(_read, events)),
        "unreported_calls": usage.calls - usage.reported,
        "seconds": seconds,
        "queries": [e["query"] for e in searches],
    }


def recall(question: EvaluationQuestion, documents: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of the supporting passages that are among the documents; None if they are not known.

    A name of a passage matches a document's id, title, source, or file name with or without its suffix; case is
    ignored.
    """
    wanted = question.supporting
    if not wanted:
        return None
    if not question.named:
        return len(wanted & {d["id"] for d in documents}) / len(wanted)
    known = {name.casefold() for d in documents for name in _names(d)}
    return sum(name.casefold() in known for name in wanted) / len(wanted)


def _names(document: Mapping[str, Any]) -> set[str]:
    source = str(document.get("source") or "")
    given = (document.get("metadata") or {}).get("title")
    path = PurePath(source)
    return {str(n) for n in (document["id"], document.get("title"), given, source, path.name, path.stem) if n}


def _read(event: Mapping[str, Any]) -> int:
    """Return the number of prompt tokens of an event's model calls, as far as they are known."""
    if "prompt_tokens" in event:
        return int(event["prompt_tokens"] or 0)
    computed = (event.get("forward_tokens") or 0) + (event.get("cached_tokens") or 0)
    return int(max(computed - (event.get("generated_tokens") or 0), 0))
