"""What a reader should know about the questions and the measurements, before believing the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.documents import Document

from langgraph_dynrag.evaluation.bootstrap import mean
from langgraph_dynrag.evaluation.corpus import expects_passage, missing_answers
from langgraph_dynrag.evaluation.methods import LONG_CONTEXT, SINGLE
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from langgraph_dynrag.evaluation.scores import Failure, Record, Result, score
from langgraph_dynrag.trace.markup import counted

_MOST_DOCUMENTS = 100_000
"""In larger corpora, answers are only looked for in what was found."""


def notes_of(
    questions: Sequence[EvaluationQuestion],
    repeated: Sequence[str],
    documents: Sequence[Document] | None,
    results: Mapping[str, Sequence[Result]],
    concurrency: int,
) -> list[str]:
    """Return the notes, one sentence or two each.

    Args:
        questions: The questions that all methods finished.
        repeated: Texts of the questions that were dropped.
        documents: What the retriever searches; None if it cannot be listed.
        results: The results of each method on the questions.
        concurrency: Number of questions in progress at a time.
    """
    notes = []
    if repeated:
        notes.append(
            f"{counted(len(repeated), 'question')} asked the same as an earlier one and {_was(repeated)} dropped, the "
            f"first: {repeated[0]!r}."
        )
    if bare := [q for q in questions if not q.answers]:
        notes.append(f"{len(bare)} of {len(questions)} questions have no answers; scores leave them out.")
    notes += _without_document(questions, documents, results)
    notes += _short_long_context(results)
    notes += _given_up(results)
    silent = sum(r.get("unreported_calls", 0) for listed in results.values() for r in _answered(listed))
    if silent:
        notes.append(
            f"{counted(silent, 'model call')} reported no usage, as servers do when a draft is abandoned; the tokens "
            "are lower bounds."
        )
    if concurrency > 1 and questions:
        notes.append(
            f"Seconds were measured with {concurrency} questions at a time; compare them only with each other, or use "
            "a concurrency of 1."
        )
    return notes


def _without_document(
    questions: Sequence[EvaluationQuestion],
    documents: Sequence[Document] | None,
    results: Mapping[str, Sequence[Result]],
) -> list[str]:
    if documents is not None and len(documents) <= _MOST_DOCUMENTS:
        lost, where = missing_answers(questions, documents), "in no document"
    else:
        found = [
            any(r["answer_found"] for listed in results.values() for r in _answered([listed[i]]))
            for i in range(len(questions))
        ]
        lost = [q for q, seen in zip(questions, found, strict=True) if expects_passage(q) and not seen]
        where = "in no passage that any method found"
    if not lost:
        return []
    note = (
        f"The answers of {len(lost)} of {len(questions)} questions occur {where}, so retrieval cannot bring them word "
        f"for word; the first: {lost[0].text!r}."
    )
    return [note]


def _short_long_context(results: Mapping[str, Sequence[Result]]) -> list[str]:
    if LONG_CONTEXT not in results or SINGLE not in results:
        return []
    most = max((r["found"] for r in _answered(results[LONG_CONTEXT])), default=0)
    usual = max((r["found"] for r in _answered(results[SINGLE])), default=0)
    if not usual or most > usual:
        return []
    note = (
        f"`{LONG_CONTEXT}` had no more passages than `{SINGLE}`: no search found more than {most}. If the retriever "
        "has a limit of its own, raise it to compare with a long context."
    )
    return [note]


def _given_up(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """State for each method that gave answers up what one search answers there, and on the other questions."""
    notes = []
    for method, listed in results.items():
        given_up = [not isinstance(r, Failure) and r.get("given_up", False) for r in listed]
        if not any(given_up):
            continue
        note = f"`{method}` gave up on {sum(given_up)} of {len(listed)} questions, which count as wrong."
        if SINGLE in results and method != SINGLE:
            there, rest = (_mean_f1(results[SINGLE], given_up, wanted=wanted) for wanted in (True, False))
            if there is not None:
                note += f" `{SINGLE}` has an F1 of {there:.2f} on these"
                own = _mean_f1(listed, given_up, wanted=False)
                note += (
                    "." if rest is None or own is None else f", and of {rest:.2f} on the others (`{method}` {own:.2f})."
                )
        notes.append(note)
    return notes


def _mean_f1(results: Sequence[Result], flags: Sequence[bool], *, wanted: bool) -> float | None:
    """Return the mean F1 on the questions with a flag; None if none of these has answers."""
    values = [score(r, "f1") for r, flag in zip(results, flags, strict=True) if flag is wanted]
    known = [v for v in values if v is not None]
    return mean(known) if known else None


def _answered(results: Sequence[Result]) -> list[Record]:
    return [r for r in results if not isinstance(r, Failure)]


def _was(items: Sequence[object]) -> str:
    return "was" if len(items) == 1 else "were"
