"""The plots of an evaluation, in the one style of the project; each is a pure function of the result."""

from __future__ import annotations

from typing import Any

from langgraph_dynrag.evaluation.results import Results
from langgraph_dynrag.evaluation.scores import Measure
from rag_backbone import plot_style


def scores_and_costs(evaluation: Results) -> Any:
    """Draw F1 (without answers: recall, if known), searches and tokens of each method, with their intervals."""
    rows = [r for r in evaluation.rows if r.problem is None and r.questions]
    quality = next((name for name in ("f1", "recall") if any(getattr(r, name) is not None for r in rows)), None)
    shown: list[tuple[str, list[Measure | None]]] = []
    if quality is not None:
        shown.append((quality.upper() if quality == "f1" else quality, [getattr(r, quality) for r in rows]))
    shown.append(("searches", [r.searches for r in rows]))
    shown.append(("prompt tokens", [r.read_tokens for r in rows]))
    figure, axes = plot_style.new_figure(
        "Answers and cost of each method",
        f"{len(evaluation.asked)} questions, {evaluation.model}; 95 % bootstrap intervals",
        columns=len(shown),
        height=1.6 + 0.42 * len(rows),
        sharey=True,
    )
    places = range(len(rows))
    for index, (label, measures) in enumerate(shown):
        axis = axes[0][index]
        values = [float("nan") if m is None else m.value for m in measures]
        bounds = [(float("nan"),) * 2 if m is None else (m.low, m.high) for m in measures]
        plot_style.intervals(axis, places, values, bounds, index=index)
        axis.set_xlabel(label)
        axis.set_xlim(left=-0.04 * axis.get_xlim()[1])  # from 0, with room for a marker there
    plot_style.name_rows(axes[0][0], [r.method for r in rows])
    return figure


def differences(evaluation: Results, baseline: str) -> Any | None:
    """Draw the paired differences in F1 to a baseline; None if there are none."""
    found = [(d.method, d.f1) for d in evaluation.differences if d.baseline == baseline and d.f1 is not None]
    if not found:
        return None
    figure, axes = plot_style.new_figure(
        f"F1 less that of {baseline}",
        f"{len(evaluation.asked)} questions, paired; 95 % bootstrap intervals",
        height=1.5 + 0.42 * len(found),
    )
    axis = axes[0][0]
    measures = [f1 for _, f1 in found]
    plot_style.intervals(axis, range(len(found)), [m.value for m in measures], [(m.low, m.high) for m in measures])
    axis.set_xlabel("difference in F1")
    plot_style.name_rows(axis, [name for name, _ in found])
    plot_style.reference(axis, 0, "no difference")
    return figure
