"""The result of an evaluation: a table, paired differences, and a verdict; as text, data, plots and a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langgraph_dynrag.evaluation.scores import Difference, Failure, Measure, Result, Row, score
from rag_backbone.loading.cache_folder import atomic_file

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
class Evaluation:
    """Methods side by side on the same questions, as `evaluate` returns them.

    `str(...)` gives the table and the verdict, `save_html` a report with plots, `to_dict` plain data. All intervals are
    95 % bootstrap intervals over the questions.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that can be serialised as JSON; what is not known is None."""
        plain: dict[str, Any] = _plain(
            {
                "model": self.model,
                "questions": self.questions,
                "finished": len(self.asked),
                "complete": self.complete,
                "concurrency": self.concurrency,
                "seed": self.seed,
                "judge": self.judge,
                "verdict": list(self.verdict),
                "notes": list(self.notes),
                "rows": [asdict(r) for r in self.rows],
                "differences": [asdict(d) for d in self.differences],
                "asked": [a.to_dict() for a in self.asked],
            }
        )
        return plain

    def save_html(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML file, atomically. Plots need matplotlib (extra `viz`)."""
        from langgraph_dynrag.evaluation.page import page

        target = Path(path)
        with atomic_file(target) as temporary:
            temporary.write_text(page(self), "utf-8")
        return target

    def plot(self) -> Any:
        """Return a matplotlib figure: F1 with intervals, against the number of searches and of tokens.

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        from langgraph_dynrag.evaluation.plots import scores_and_costs

        return scores_and_costs(self)

    def _repr_html_(self) -> str:
        from langgraph_dynrag.evaluation.page import fragment

        return fragment(self)

    def __repr__(self) -> str:
        ran = [r.method for r in self.rows if r.problem is None]
        until = "" if self.complete else f" of {self.questions}"
        return f"Evaluation({self.model!r}: {', '.join(ran)} on {len(self.asked)}{until} questions)"

    def __str__(self) -> str:
        ran, names = [r for r in self.rows if r.problem is None], self.columns()
        table = [["method", *(COLUMNS[name][0] for name in names), "failed"]]
        table += [[r.method, *(cell(r, name) for name in names), str(r.failures)] for r in ran]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [f"{self.model}, {len(self.asked)} of {self.questions} questions"]
        padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in table]
        lines += ["  ".join(line).rstrip() for line in padded]
        lines += [f"{r.method}: not run, {r.problem}" for r in self.rows if r.problem is not None]
        lines += [f"{r.method}: {r.failures} failed, the first: {r.first_failure}" for r in ran if r.failures]
        lines += ["", *(f"- {line}" for line in self.verdict)]
        return "\n".join([*lines, "", *(f"Note: {note}" for note in self.notes)]).rstrip()


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


def _plain(value: Any) -> Any:
    """Replace nan by None, because JSON has no nan, and tuples by lists."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
