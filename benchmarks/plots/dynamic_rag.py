"""The plots of dynamic RAG: methods, triggers, queries, thresholds, concurrent sessions."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.plots.parts import SPAN, Figures, counted, data_name, dodged, draw_rows, model_of, numbers
from rag_backbone import plot_style as style

TRIGGERS = {"Once()": "once, before the answer", "EverySentence()": "every sentence"}


def methods(figures: Figures) -> Any:
    """Draw F1 by method with its interval beside the seconds per question, with a row of axes for each data set."""
    data = {name: rows for name, rows in figures["data"].items() if any(row["n"] for row in rows)}
    if not data:
        return None
    timed = all(row["timed"] for rows in data.values() for row in rows)
    most = max(len(rows) for rows in data.values())
    note = f"{SPAN} {model_of(figures)}"
    if timed:
        note += f"\nSeconds: mean of {counted(row['timed'] for rows in data.values() for row in rows)} questions"
    figure, axes = style.new_figure(
        "F1 and time per question, by method" if timed else "F1 by method",
        note,
        rows=len(data),
        columns=1 + timed,
        height=1.2 + len(data) * (0.9 + 0.26 * most),
        sharey="row",
        sharex="col",
        width_ratios=(2, 1) if timed else None,
    )
    for (name, rows), (left, *right) in zip(data.items(), axes, strict=True):
        style.name_rows(left, [row["method"] for row in rows])
        draw_rows(left, range(len(rows)), rows, "f1", "f1_interval")
        left.set_xlim(left=0)
        left.set_title(f"{data_name(name)}, n = {counted(row['n'] for row in rows)}", pad=20)
        one = {row["method"]: row["f1"] for row in rows}.get("single")
        if one is not None:
            style.reference(left, one, f"one search: {one:.2f}")
        for axis in right:
            axis.barh(range(len(rows)), numbers(rows, "seconds"), height=0.6, **style.bar_look(1))
    for axis, label in zip(axes[-1], ("F1", "seconds"), strict=False):
        axis.set_xlabel(label)
    return figure


def calibrated(figures: Figures) -> Any:
    """Draw what each method gains over one search beside its searches per question, by data set."""
    data = {name: rows for name, rows in figures["data"].items() if any(row["n"] for row in rows)}
    if not data:
        return None
    figure, axes = style.new_figure(
        "F1 compared with one search, and searches\nper question, at calibrated thresholds",
        f"{SPAN} {model_of(figures)}",
        rows=len(data),
        columns=2,
        height=1.6 + len(data) * (1.0 + 0.26 * max(len(rows) for rows in data.values())),
        sharey="row",
        sharex="col",
        width_ratios=(2, 1),
    )
    for (name, rows), (left, right) in zip(data.items(), axes, strict=True):
        style.name_rows(left, [row["method"] for row in rows])
        draw_rows(left, range(len(rows)), rows, "f1_over_single", "f1_over_single_interval")
        left.set_title(f"{data_name(name)}, n = {counted(row['n'] for row in rows)}", pad=20)
        style.reference(left, 0, "one search")
        right.barh(range(len(rows)), numbers(rows, "retrievals"), height=0.6, **style.bar_look(1))
    for axis, label in zip(axes[-1], ("F1 minus that of one search", "searches"), strict=True):
        axis.set_xlabel(label)
    return figure


def triggers(figures: Figures) -> Any:
    """Draw the area under the curve of each trigger, over all points and over those that state a fact."""
    shown = {k: v for k, v in list(figures["triggers"].items())[-2:] if v}
    if not shown:
        return None
    rows = next(iter(shown.values()))
    usual = {name: max(row["n"] for row in found) for name, found in shown.items()}
    names = []
    for i, row in enumerate(rows):
        fewer = [found[i]["n"] for found in shown.values()]
        text = _trigger(row["trigger"])
        names.append(text if fewer == list(usual.values()) else f"{text}, n = {' and '.join(map(str, fewer))}")
    figure, axes = style.new_figure(
        "How well triggers rank the points\nwhere retrieval was needed",
        f"{SPAN} {model_of(figures)}\nn: points of drafts, that is sentences",
        columns=len(shown),
        height=1.9 + 0.41 * len(rows),
        sharey=True,
        sharex=True,
    )
    style.name_rows(axes[0][0], names)
    for axis, (name, found) in zip(axes[0], shown.items(), strict=True):
        draw_rows(axis, range(len(found)), found, "auc", "auc_interval")
        what = "statements only" if name.endswith(", statements") else "all sentences"
        axis.set_title(f"{what}\nn = {usual[name]}", pad=20)
        axis.set_xlabel("area under the curve")
    for axis in axes[0]:
        style.reference(axis, 0.5, "chance: 0.5")
    return figure


LEARNED = {
    "least token probability": "least token probability",
    "least probability of a new name": "least probability of a new name or number",
    "learned elsewhere, trees": "learned (trees), on other data sets",
    "learned, trees": "learned (trees), on all training files",
}
"""Triggers of the plot of learned ones, with their names there."""


def learned_trigger(figures: Figures) -> Any:
    """Draw the area under the curve of learned and plain triggers, by file."""
    if not figures["judged"]:
        return None
    files = list(figures["judged"])
    counts = [figures["judged"][name][0]["n"] for name in files]
    figure, axes = style.new_figure(
        "How well a learned trigger ranks the points\nwhere retrieval was needed",
        f"{SPAN} {model_of(figures)}\nn: points of drafts, that is sentences",
        height=3.0 + 0.75 * len(files),
    )
    axis = axes[0][0]
    shown = ["all of them" if name == "all" else data_name(name) for name in files]
    style.name_rows(axis, [f"{name}, n = {n}" for name, n in zip(shown, counts, strict=True)])
    for i, ((trigger, label), at) in enumerate(zip(LEARNED.items(), dodged(len(LEARNED)), strict=True)):
        rows = [next(row for row in figures["judged"][name] if row["trigger"] == trigger) for name in files]
        draw_rows(axis, np.arange(len(files)) + at, rows, "auc", "auc_interval", index=i, label=label)
    style.legend(axis, columns=1, lift=20)
    axis.set_xlabel("area under the curve")
    style.reference(axis, 0.5, "chance: 0.5")
    return figure


def queries(figures: Figures) -> Any:
    """Draw recall at 3 by formulator: by what is already known, and by the sentence of the answer."""
    last = list(figures["formulators"])[-1]
    rows = figures["formulators"][last]
    if not rows:
        return None
    names = [row["formulator"] for row in rows]
    parts = {
        "by paragraphs known": (figures["by_hop"][last], {"1": "none", "2": "one", "3": "two or more"}),
        "by sentence": (figures["by_position"][last], {"1": "first", "2": "second", "3": "third or later"}),
    }
    figure, axes = style.new_figure(
        "Recall of the missing paragraphs,\nby query formulation",
        f"{SPAN} {model_of(figures)}\nn: points where retrieval was needed; recall among 3 passages",
        columns=2,
        height=2.4 + 0.5 * len(names),
        sharey=True,
        sharex=True,
    )
    style.name_rows(axes[0][0], [name.replace(", ", ",\n") if len(name) >= 23 else name for name in names])
    alone = {row["formulator"]: row["recall@3"] for row in rows}.get("question")
    for axis, (title, (cells, words)) in zip(axes[0], parts.items(), strict=True):
        values = sorted({value for of in cells.values() for value in of})
        for i, (value, at) in enumerate(zip(values, dodged(len(values)), strict=True)):
            found = [cells[name].get(value, {"value": None, "interval": (None, None), "n": 0}) for name in names]
            label = f"{words[value]}, n = {max(cell['n'] for cell in found)}"
            places = np.arange(len(names)) + at
            draw_rows(axis, places, found, "value", "interval", index=i, label=label)
        axis.set_xlim(0, 1)
        axis.set_xlabel("recall at 3")
        style.legend(axis, columns=1, title=title, lift=20)
    if alone is not None:
        for axis in axes[0]:
            style.reference(axis, alone, f"question alone: {alone:.2f}")
    return figure


def sensitivity(figures: Figures) -> Any:
    """Draw F1, retrievals and, if timed, seconds against the threshold: a column per method, a line per cap."""
    from langgraph_dynrag.budgets import Budgets

    points = [p for p in figures["points"] if p["n"]]
    if not points:
        return None
    found = list(dict.fromkeys(p["method"] for p in points))
    caps = list(dict.fromkeys(p["cap"] for p in points))
    measures = {"f1": "F1", "retrievals": "retrievals\nper question"}
    if all(p["timed"] for p in points):
        measures["seconds"] = "seconds\nper question"
    asked = f"n = {counted(p['n'] for p in points)} questions"
    if "seconds" in measures:
        asked += f", {counted(p['timed'] for p in points)} of them timed"
    figure, axes = style.new_figure(
        "F1 and cost, by threshold and cap",
        f"{SPAN} {asked}\n{data_name(figures['data'])}; {model_of(figures)}",
        rows=len(measures),
        columns=len(found),
        height=1.8 + 1.7 * len(measures),
        sharex="col",
        sharey="row",
        height_ratios=(1.5, *(1 for _ in list(measures)[1:])),
    )
    middle = float(np.mean([p["f1"] for p in points]))
    for column, method in enumerate(found):
        grid = sorted({p["threshold"] for p in points if p["method"] == method})
        for i, (cap, at) in enumerate(zip(caps, dodged(len(caps)), strict=True)):
            of = sorted((p for p in points if (p["method"], p["cap"]) == (method, cap)), key=lambda p: p["threshold"])
            places = [grid.index(p["threshold"]) + at for p in of]
            label = "none" if cap == Budgets().retrievals else str(cap)
            draw_rows(axes[0][column], places, of, "f1", "f1_interval", index=i, label=label, vertical=True, line=True)
            for axis, measure in zip(axes[1:, column], list(measures)[1:], strict=True):
                axis.plot(places, numbers(of, measure), **style.look(i))
        axes[0][column].set_title(method)
        axes[-1][column].set_xticks(range(len(grid)), [f"{t:g}" for t in grid])
        axes[-1][column].set_xlabel("threshold")
    for axis in axes[0]:
        text = f"mean of\nall:\n{middle:.2f}" if axis is axes[0][-1] else ""
        style.reference(axis, middle, text, horizontal=True)
    for axis, label in zip(axes[:, 0], measures.values(), strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    style.legend(axes[0][0], columns=len(caps), title="cap on searches", lift=24)
    return figure


def throughput(figures: Figures) -> Any:
    """Draw how many times as many questions per second concurrent sessions answer as a single one."""
    rows = [row for row in figures["rows"] if row["sessions"] != 1]
    if not rows:
        return None
    figure, axes = style.new_figure(
        "Questions per second of concurrent sessions",
        f"n = {figures['questions']} questions; passes: {counted(row['passes'] for row in rows)} (the fastest counts), "
        f"so no interval;\n{data_name(figures['data'])}; model: {figures['model']}",
        height=1.9 + 0.5 * len(rows),
    )
    axis = axes[0][0]
    names = [f"{r['preset']}, {r['dtype']},\n{r['sessions']} sessions, {r['prompts']} prompts" for r in rows]
    style.name_rows(axis, names)
    bars = axis.barh(range(len(rows)), numbers(rows, "speedup"), height=0.55, **style.bar_look(0))
    axis.bar_label(bars, [f"{row['speedup']:.2f}" for row in rows], padding=4, gid="inside")
    axis.set_xlabel("questions per second, as a multiple of one session")
    axis.set_xlim(0, 1.15 * max(row["speedup"] for row in rows))
    style.reference(axis, 1, "one session")
    return figure


def _trigger(name: str) -> str:
    if name.startswith("EveryNTokens(n="):
        return f"every {name.removeprefix('EveryNTokens(n=').removesuffix(')')} tokens"
    return TRIGGERS.get(name, name.replace(" (", "\n(") if len(name) > 24 else name)
