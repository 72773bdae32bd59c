"""`evaluate`: which method is worth its cost, for a model, a corpus and questions of one's own."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Unpack

from langgraph_dynrag.evaluation.asking import Job, run
from langgraph_dynrag.evaluation.corpus import documents_of, identity_of
from langgraph_dynrag.evaluation.deadline import Deadline
from langgraph_dynrag.evaluation.judges import Judge, check_judge, check_needs
from langgraph_dynrag.evaluation.judging import judge_answers
from langgraph_dynrag.evaluation.methods import (
    LONG_CONTEXT,
    SINGLE,
    Method,
    PresetLike,
    make_methods,
    named_presets,
)
from langgraph_dynrag.evaluation.notes import notes_of
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from langgraph_dynrag.evaluation.records import Records
from langgraph_dynrag.evaluation.report import Evaluation
from langgraph_dynrag.evaluation.results import Asked
from langgraph_dynrag.evaluation.scores import Failure, Result, Row, difference_of, row_of
from langgraph_dynrag.evaluation.selection import QuestionLike, Selection
from langgraph_dynrag.evaluation.verdict import verdict_of
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, chat_model_within
from langgraph_dynrag.options import DynamicRAGOptions, refuse_unknown_options
from langgraph_dynrag.presets.file import belonging
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from rag_backbone.aio import in_own_thread
from rag_backbone.errors import ConfigurationError, ServerError

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy

DEFAULT_PRESETS = ("fixed_sentence", "flare")
"""A method that always takes several steps, and one that searches where the model is unsure."""
_IN_A_ROW = 10
"""Number of failures of a server without a success between them after which the run ends with the last one."""
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "max_tokens", "openai_api_base")
"""Fields of chat models that change their answers."""
_P = ParamSpec("_P")


def evaluate(
    model: ChatModelLike,
    retriever: Retriever | None,
    questions: str | Path | Iterable[QuestionLike],
    *,
    presets: Iterable[PresetLike] | Mapping[str, PresetLike] = DEFAULT_PRESETS,
    limit: int | None = None,
    long_context: int = 10,
    records: str | Path | None = None,
    concurrency: int = 8,
    minutes: float | Deadline = math.inf,
    judge: Judge | None = None,
    bootstrap_seed: int = 0,
    server: ServerPolicy | None = None,
    progress: bool = False,
    **options: Unpack[DynamicRAGOptions],
) -> Evaluation:
    """Ask the same questions of several methods, and compare answers and costs.

    Each preset runs as `create_dynamic_rag` runs it. Three baselines are always there: `no_retrieval`, `single` (one
    search with the question) and `long_context` (one search for many passages; if the questions come with paragraphs,
    all of those). Questions are asked one after the other of all methods, so that a run that ends early has compared
    the methods on the same questions.

    A question that fails counts as answered wrongly, and the row gives the number and the first reason. A preset that
    the model cannot run has a row with the reason.

    Args:
        model: As for `create_dynamic_rag`.
        retriever: As for `create_dynamic_rag`; None to search the paragraphs that the questions come with (BM25).
        questions: A file (see `load_questions`), or questions: strings, or mappings with `question`, `answers` and
            `supporting` (titles, sources or ids of the passages that are needed). Without answers, only costs are
            compared.
        presets: Names, names with a threshold (`"flare@0.3"`), preset files, or what `get_preset` returns; as a
            mapping, under names of your own.
        limit: Maximum number of questions; a sample by the seed if there are more.
        long_context: Number of passages of `long_context`; 0 leaves it out.
        records: A file in which finished questions are kept. The same call with it resumes an interrupted run: only
            what is missing, or failed, is asked. Records depend on model, method, question and documents; of a
            retriever whose documents cannot be listed, only on its class and options.
        concurrency: Number of questions in progress at a time.
        minutes: Time after which no further question is asked.
        judge: A further score of the answers; see `Judge`.
        bootstrap_seed: Seed of the sample and of the intervals. The same seed gives the same table.
        server: As for `create_dynamic_rag`; pauses and retries for servers with rate limits.
        progress: Whether to show a progress bar with the time left.
        **options: As for `create_dynamic_rag`, for all methods alike, except `trigger` and `query`.

    Raises:
        ConfigurationError: If an option is out of range, a question is invalid, or no method can be run.
        ServerError: If ten questions in a row failed with it.

    Example:
        >>> found = evaluate(model, retriever, "questions.jsonl", presets=["flare", "dragin"])  # doctest: +SKIP
        >>> print(found)  # doctest: +SKIP
        >>> found.save_html("report.html")  # doctest: +SKIP
    """
    deadline = minutes if isinstance(minutes, Deadline) else Deadline(minutes)
    _check(options, limit, long_context, concurrency, minutes)
    if judge is not None:
        check_judge(judge)
    selection = Selection.of(questions, limit, bootstrap_seed)
    if judge is not None:
        check_needs(judge, selection.chosen)
    wanted = named_presets(presets)
    if retriever is None:
        retriever = BM25Retriever.from_documents(selection.own_corpus())
    else:
        check_retriever(retriever)
        selection = selection.in_another_corpus()
    kept = Records(None if records is None else Path(records))
    methods = make_methods(
        model, retriever, selection.chosen, wanted, long_context=long_context, server=server, options=options
    )
    documents = documents_of(retriever)
    name, common = _described(model)
    common |= {"corpus": identity_of(retriever, documents)}
    jobs = {m.name: [_job(m, q, common) for q in selection.chosen] for m in methods if m.problem is None}
    failures = _Failures()
    complete = _ask_all(jobs, kept, deadline, concurrency, failures, progress=progress)
    results = {m: [failures.get(job) or kept.get(job.key) for job in listed] for m, listed in jobs.items()}
    finished = [i for i in range(len(selection.chosen)) if all(listed[i] is not None for listed in results.values())]
    told: dict[str, list[Result]] = {m: [r for i in finished if (r := x[i]) is not None] for m, x in results.items()}
    asked = [selection.chosen[i] for i in finished]
    judged: Mapping[str, Sequence[float | None]] = {}
    notes = notes_of(asked, selection.repeated, documents, told, concurrency)
    if judge is not None:
        answered = {m: [listed[i] for i in finished] for m, listed in jobs.items()}
        judged, more = judge_answers(judge, answered, kept, deadline, concurrency)
        notes += more
    rows = [
        Row(m.name, problem=m.problem)
        if m.problem is not None
        else row_of(m.name, told[m.name], judged.get(m.name, ()), bootstrap_seed)
        for m in methods
    ]
    differences = [
        difference_of(method, listed, baseline, told[baseline], bootstrap_seed)
        for baseline in (SINGLE, LONG_CONTEXT)
        if baseline in told and finished
        for method, listed in told.items()
        if method != baseline
    ]
    return Evaluation(
        model=name,
        rows=tuple(rows),
        differences=tuple(differences),
        verdict=verdict_of(rows, differences, complete=complete),
        notes=tuple(notes),
        asked=tuple(Asked(q.text, q.answers, {m: told[m][i] for m in told}) for i, q in enumerate(asked)),
        questions=len(selection.chosen),
        complete=complete,
        concurrency=concurrency,
        seed=bootstrap_seed,
        judge=None if judge is None else judge.name,
    )


_PARAMETERS = ("model", "retriever", "questions", *(evaluate.__kwdefaults__ or ()))


def _in_a_thread(function: Callable[_P, Evaluation]) -> Callable[_P, Awaitable[Evaluation]]:
    """Run `evaluate` in a thread of its own; a caller that is cancelled ends it between two questions."""

    @functools.wraps(function)
    async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> Evaluation:
        given: dict[str, Any] = dict(kwargs)
        minutes = given.get("minutes", math.inf)
        deadline = minutes if isinstance(minutes, Deadline) else Deadline(minutes)
        given["minutes"] = deadline
        try:
            return await in_own_thread(functools.partial(function, *args, **given))
        except asyncio.CancelledError:
            deadline.stop()
            raise

    awaited.__doc__ = "Await `evaluate` without blocking the event loop.\n\nArguments, result and errors are the same."
    awaited.__name__ = awaited.__qualname__ = "aevaluate"
    return awaited


aevaluate = _in_a_thread(evaluate)
"""Await `evaluate` without blocking the event loop; if cancelled, it asks no further question.

Arguments, result and errors are the same.
"""


# ---------------------------------------------------------------------- helpers


class _Failures:
    """The questions that failed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Failure] = {}
        self._in_a_row = 0

    def take(self, job: Job, error: Exception) -> None:
        """Note a failure.

        Raises:
            ServerError: The failure itself, if it is the tenth of a server without a success between them.
        """
        with self._lock:
            self._in_a_row += isinstance(error, ServerError)
            if self._in_a_row >= _IN_A_ROW:
                raise error
            message = " ".join(f"{type(error).__name__}: {error}".split())
            self._found[job.key] = Failure(message, bool(job.question.answers), bool(job.question.supporting))

    def success(self) -> None:
        """Note that a question was answered."""
        with self._lock:
            self._in_a_row = 0

    def get(self, job: Job) -> Failure | None:
        """Return the failure of a question, or None."""
        return self._found.get(job.key)


def _ask_all(
    jobs: Mapping[str, Sequence[Job]],
    records: Records,
    deadline: Deadline,
    concurrency: int,
    failures: _Failures,
    *,
    progress: bool,
) -> bool:
    """Ask each question of all methods in turn; return whether all were asked."""
    from tqdm.auto import tqdm

    turns = [job for question in zip(*jobs.values(), strict=True) for job in question]
    known = sum(1 for job in turns if records.get(job.key) is not None)
    with tqdm(total=len(turns), initial=known, desc="evaluating", unit="answer", disable=not progress) as bar:
        return run(
            turns,
            records,
            deadline,
            concurrency,
            on_success=failures.success,
            on_failure=failures.take,
            on_done=bar.update,
        )


def _job(method: Method, question: EvaluationQuestion, common: Mapping[str, Any]) -> Job:
    about = {
        **common,
        "method": hashlib.sha256(method.described.encode("utf-8", "backslashreplace")).hexdigest(),
        "question": question.text,
        "answers": question.answers,
        "supporting": sorted(question.supporting),
    }
    if method.name == LONG_CONTEXT:
        about["paragraphs"] = [p.id for p in question.paragraphs]
    return Job(about, question, lambda: method.build(question))


def _described(model: ChatModelLike) -> tuple[str, dict[str, Any]]:
    """Return the model's name, and what its answers depend on."""
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel

    of, chat = belonging(model, reasoned_prompt(0)), chat_model_within(model)
    sampling = {name: repr(getattr(chat, name)) for name in _SAMPLING if hasattr(chat, name)}
    loaded = repr(chat.lm) if isinstance(chat, LocalChatModel) else ""  # with the dtype and the device
    return of.model, {"model": of.model, "fingerprint": of.fingerprint, "loaded": loaded, "sampling": sampling}


def _check(
    options: Mapping[str, Any], limit: int | None, long_context: int, concurrency: int, minutes: float | Deadline
) -> None:
    refuse_unknown_options(options, "evaluate", _PARAMETERS)
    for name in ("trigger", "query"):
        if name in options:
            raise ConfigurationError(
                f"{name} belongs to one method, and evaluate compares several; pass a preset with it: presets="
                "['flare@0.3'], or dataclasses.replace(get_preset('flare'), settings={...})"
            )
    for name, value, least in (("limit", limit, 1), ("long_context", long_context, 0), ("concurrency", concurrency, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ConfigurationError(f"{name} is {value!r}; a whole number of at least {least} is needed")
    if not isinstance(minutes, Deadline) and not minutes > 0:
        raise ConfigurationError(f"minutes is {minutes!r}; a number above 0 is needed")
