"""Have a judge score the answers that the methods gave, and keep its scores as records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from langgraph_dynrag.evaluation.asking import Job
from langgraph_dynrag.evaluation.deadline import Deadline
from langgraph_dynrag.evaluation.judges import Judge, Need, needs_of
from langgraph_dynrag.evaluation.records import Records, key_of


def judge_answers(
    judge: Judge,
    asked: Mapping[str, Sequence[Job]],
    records: Records,
    deadline: Deadline,
    sessions: int,
) -> tuple[dict[str, list[float | None]], list[str]]:
    """Score the answers of each method that have no score yet.

    Args:
        judge: The judge.
        asked: The questions of each method.
        records: Where answers are read and scores are kept.
        deadline: When to stop.
        sessions: Number of answers judged at a time.

    Returns:
        The scores of each method (None where there is no answer or no score), and notes about missing scores.
    """
    problems: list[str] = []
    needs = needs_of(judge)

    def one(job: Job) -> None:
        record = records.get(job.key)
        about = _about(judge, job)
        if record is None or deadline.over or records.get(key_of(about)) is not None or _lack(needs, job, record):
            return
        try:
            reference = job.question.answers[0] if job.question.answers else ""
            score = float(judge(job.question.text, record["answer"], reference, record["contexts"]))
            if not math.isfinite(score):
                raise ValueError(f"{judge.name} gave the score {score}; a finite number is needed")
        except Exception as error:  # noqa: BLE001 - a judge is the user's own, or a server
            problems.append(f"{type(error).__name__}: {error}")
            return
        records.put(key_of(about), about, {"score": score})

    with ThreadPoolExecutor(sessions, "dynprag-judge") as pool:
        try:
            for future in as_completed([pool.submit(one, job) for jobs in asked.values() for job in jobs]):
                future.result()
        except BaseException:
            deadline.stop()
            raise
    found = {method: [_score(records, judge, job) for job in jobs] for method, jobs in asked.items()}
    unscored = [j for m, jobs in asked.items() for j, score in zip(jobs, found[m], strict=True) if score is None]
    lacking = Counter(_lack(needs, job, record) for job in unscored if (record := records.get(job.key)) is not None)
    failed = len(unscored) - sum(n for why, n in lacking.items() if why)
    notes = [f"The judge was not asked about {n} answers, because {why}." for why, n in lacking.items() if why]
    if failed:
        why = f"; the first failure: {problems[0]}" if problems else ""
        notes.append(f"The judge gave no score for {failed} answers{why}.")
    return found, notes


def _lack(needs: frozenset[Need], job: Job, record: Mapping[str, Any]) -> str | None:
    """Return what an answer lacks that a judge cannot do without; None if nothing."""
    if "reference" in needs and not job.question.answers:
        return "no correct answer is known"
    if "contexts" in needs and not record["contexts"]:
        return "no passage was found"
    return None


def _about(judge: Judge, job: Job) -> dict[str, str]:
    return {"answer": job.key, "judge": judge.name}


def _score(records: Records, judge: Judge, job: Job) -> float | None:
    found = records.get(key_of(_about(judge, job)))
    return None if found is None else float(found["score"])
