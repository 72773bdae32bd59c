"""The result of an evaluation as text, data, plots and a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langgraph_dynrag.evaluation import plots
from langgraph_dynrag.evaluation.page import fragment, page
from langgraph_dynrag.evaluation.results import COLUMNS, Results, cell
from rag_backbone.loading.cache_folder import atomic_file


class Evaluation(Results):
    """Methods side by side on the same questions, as `evaluate` returns them.

    `str(...)` gives the table and the verdict, `save_html` a report with plots, `to_dict` plain data. All intervals are
    95 % bootstrap intervals over the questions.
    """

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
        target = Path(path)
        with atomic_file(target) as temporary:
            temporary.write_text(page(self), "utf-8")
        return target

    def plot(self) -> Any:
        """Return a matplotlib figure: F1 with intervals, against the number of searches and of tokens.

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        return plots.scores_and_costs(self)

    def _repr_html_(self) -> str:
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
        judge = f", judged by {self.judge}" if self.judge else ""
        lines = [f"{self.model}, {len(self.asked)} of {self.questions} questions{judge}"]
        padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in table]
        lines += ["  ".join(line).rstrip() for line in padded]
        lines += [f"{r.method}: not run, {r.problem}" for r in self.rows if r.problem is not None]
        lines += [f"{r.method}: {r.failures} failed, the first: {r.first_failure}" for r in ran if r.failures]
        lines += ["", *(f"- {line}" for line in self.verdict)]
        return "\n".join([*lines, "", *(f"Note: {note}" for note in self.notes)]).rstrip()


def _plain(value: Any) -> Any:
    """Replace nan by None, because JSON has no nan, and tuples by lists."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
