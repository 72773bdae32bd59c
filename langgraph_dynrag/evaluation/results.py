"""The figures of an evaluation: each method's row, paired differences, and the result of every question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph_dynrag.evaluation.scores import Difference, Failure, Measure, Result, Row, score

COLUMNS: Mapping[str, tuple[str, int]] = {
    "em": ("EM", 2),
    "f1": ("F1", 2),
    "contains": ("contains", 2),
    "recall": ("recall", 2),
    "judged": ("judge", 2),
    "searches": ("searches", 1),
    "read_tokens": ("read", 0),
    "written_tokens": ("written", 0),
    "seconds": ("seconds", 1),
}
"""Heading and decimals of each measure of a row."""
_WITH_INTERVAL = ("em", "f1", "contains", "recall", "judged")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with the result of each method."""

    question: str
    answers: tuple[str, ...]
    results: Mapping[str, Result]

    def to_dict(self) -> dict[str, Any]:
        """Return the question, and of each method the short answer, its F1 and its number of searches."""
        return {
            "question": self.question,
            "answers": list(self.answers),
            "results": {name: _told(result) for name, result in self.results.items()},
        }


@dataclass(frozen=True)
class Results:
    """What was measured. All intervals are 95 % bootstrap intervals over the questions."""

    model: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    """Each method less `single`, and less `long_context`, paired by question."""
    verdict: tuple[str, ...]
    """What the numbers show, in plain words, one statement per entry."""
    notes: tuple[str, ...]
    """What to know about the questions and the measurements, such as answers that no document contains."""
    asked: tuple[Asked, ...]
    """The questions that all methods finished."""
    questions: int
    """Number of questions that were to be asked."""
    complete: bool
    """Whether all methods finished all of them; False if the time was up."""
    concurrency: int
    """Number of questions in progress at a time, on which the seconds depend."""
    seed: int
    judge: str | None = None
    """The judge and its model; None without one."""

    def row(self, method: str) -> Row:
        """Return the row of a method.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"there is no method {method!r}; there are {', '.join(r.method for r in self.rows)}")

    def columns(self) -> list[str]:
        """Return the names of the measures that any method has."""
        return [name for name in COLUMNS if any(getattr(r, name) is not None for r in self.rows)]


def cell(row: Row, name: str) -> str:
    """Return a measure of a row as text: with its interval if it is a score; empty if it is not known."""
    measure: Measure | None = getattr(row, name)
    if measure is None:
        return ""
    if name in _WITH_INTERVAL:
        return str(measure)
    return f"{measure.value:,.{COLUMNS[name][1]}f}"


def _told(result: Result) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"failure": result.message}
    return {
        "short_answer": result["short_answer"],
        "f1": score(result, "f1"),
        "searches": result["retrievals"],
        "queries": result["queries"],
    }
