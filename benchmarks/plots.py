"""Plots of the experiments. Without matplotlib (the `viz` extra) they are skipped, with a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import note


def method_bars(data: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Plot F1 with its interval by method, and F1 against seconds."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(2, len(data), figsize=(6.5 * len(data), 7.5), squeeze=False)
    for column, (stem, rows) in enumerate(data.items()):
        names = [row["method"] for row in rows]
        values = [row["f1"] for row in rows]
        low = [row["f1"] - row["f1_interval"][0] for row in rows]
        high = [row["f1_interval"][1] - row["f1"] for row in rows]
        top, bottom = axes[0][column], axes[1][column]
        top.barh(names, values, xerr=[low, high], color="#4c78a8", ecolor="#333333", capsize=3)
        top.invert_yaxis()
        top.set_xlabel("F1 (95 % interval)")
        top.set_title(f"{stem}, n = {rows[0]['n'] if rows else 0}")
        for row in rows:
            bottom.scatter(row["seconds"], row["f1"], color="#e45756")
            bottom.annotate(
                row["method"], (row["seconds"], row["f1"]), fontsize=8, xytext=(4, 3), textcoords="offset points"
            )
        bottom.set_xlabel("seconds per question")
        bottom.set_ylabel("F1")
        bottom.grid(alpha=0.3)
    _save(figure, path)


def trigger_curves(groups: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], path: Path) -> None:
    """Plot hits against false alarms, with a panel for each group and a curve for each trigger."""
    pyplot = _pyplot()
    shown = {name: curves for name, curves in groups.items() if curves}
    if pyplot is None or not shown:
        return
    figure, panels = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 5.4), squeeze=False, sharey=True)
    for axis, (name, curves) in zip(panels[0], shown.items(), strict=True):
        for i, (trigger, points) in enumerate(curves.items()):
            style = "-" if i < 10 else "--"
            axis.plot([p[0] for p in points], [p[1] for p in points], style, color=f"C{i % 10}", label=trigger, lw=1.4)
        axis.plot([0, 1], [0, 1], ":", color="#999999")
        axis.set_title(name)
        axis.set_xlabel("share of points without need above the threshold")
    panels[0][0].set_ylabel("share of points that needed retrieval above it")
    figure.legend(*panels[0][0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="lower center")
    figure.subplots_adjust(bottom=0.28)
    _save(figure, path, tight=False)


def grouped_lines(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], measure: str, path: Path) -> None:
    """Plot a measure by part, with a panel for each way to divide the points and a line for each method."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6.5 * len(panels), 6), squeeze=False, sharey=True)
    for axis, (part, methods) in zip(axes[0], panels.items(), strict=True):
        for i, (name, cells) in enumerate(methods.items()):
            style = "-o" if i < 10 else "--s"
            axis.plot(list(cells), [c["value"] for c in cells.values()], style, color=f"C{i % 10}", label=name, ms=4)
        axis.set_xlabel(part)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(measure)
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="lower center")
    figure.subplots_adjust(bottom=0.25)
    _save(figure, path, tight=False)


def sensitivity(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Plot F1 against retrievals and, if timed, seconds: a curve per method and cap, with thresholds at the points."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    measured = ["retrievals"]
    if all(point["timed"] for points in curves.values() for point in points):
        measured.append("seconds")
    figure, panels = pyplot.subplots(1, len(measured), figsize=(6.5 * len(measured), 5), squeeze=False)
    axes = panels[0]
    for i, (name, points) in enumerate(curves.items()):
        color = f"C{i % 10}"
        for axis, x in zip(axes, measured, strict=True):
            ordered = sorted(points, key=lambda p: p[x])
            axis.plot([p[x] for p in ordered], [p["f1"] for p in ordered], "-o", color=color, label=name, alpha=0.8)
            for p in ordered:
                axis.annotate(
                    f"{p['threshold']:g}", (p[x], p["f1"]), fontsize=7, xytext=(3, 3), textcoords="offset points"
                )
                if x in p["pareto"]:
                    axis.scatter(p[x], p["f1"], s=140, facecolors="none", edgecolors="black", linewidths=1.2)
    for axis, x in zip(axes, measured, strict=True):
        axis.set_xlabel(f"{x} per question")
        axis.set_ylabel("F1")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("Trigger sensitivity (numbers: thresholds; rings: Pareto points)")
    _save(figure, path)


def fidelity_bars(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot F1 of each condition with its interval."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axis = pyplot.subplots(figsize=(8, 0.42 * len(rows) + 1.2))
    values = [row["f1"] for row in rows]
    errors = [[row["f1"] - row["low"] for row in rows], [row["high"] - row["f1"] for row in rows]]
    plain = ("closed", "context", "warm-up")
    colors = ["#9d9d9d" if row["condition"] in plain else "#4c78a8" for row in rows]
    names = [f"{row['condition']} (n = {row['n']})" for row in rows]
    axis.barh(names, values, xerr=errors, color=colors, ecolor="#333333", capsize=3)
    axis.invert_yaxis()
    axis.set_xlabel("F1 (95 % interval over passages)")
    _save(figure, path)


def length_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot F1, prompt tokens and seconds against the number of documents, with a curve for each mode."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2))
    for i, mode in enumerate(dict.fromkeys(row["mode"] for row in rows)):
        points = [row for row in rows if row["mode"] == mode]
        counts = [row["documents"] for row in points]
        axes[0].fill_between(counts, [p["low"] for p in points], [p["high"] for p in points], alpha=0.12, color=f"C{i}")
        for axis, name in zip(axes, ("f1", "prompt tokens", "s to first token"), strict=True):
            axis.plot(counts, [row[name] for row in points], "-o", color=f"C{i}", label=mode)
    for axis, label in zip(axes, ("F1 (95 % interval)", "prompt tokens", "seconds to the first token"), strict=True):
        axis.set_xlabel("documents")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    _save(figure, path)


def forgetting_bars(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the drop with its interval: a panel per kind of question, a bar per number of adapters and bound."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    kinds = list(dict.fromkeys(row["question"] for row in rows))
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(6 * len(kinds), 3.8), squeeze=False, sharey=True)
    bounds = list(dict.fromkeys(row["bound"] for row in rows))
    for axis, kind in zip(axes[0], kinds, strict=True):
        for place, bound in enumerate(bounds):
            found = [row for row in rows if row["question"] == kind and row["bound"] == bound]
            at = [i + 0.8 * place / len(bounds) for i in range(len(found))]
            drops = [row["drop"] for row in found]
            errors = [[row["drop"] - row["low"] for row in found], [row["high"] - row["drop"] for row in found]]
            name = bound if isinstance(bound, str) else f"guard at {bound:g} nats"
            axis.bar(at, drops, 0.7 / len(bounds), yerr=errors, label=name, color=f"C{place}", ecolor="#333333")
            axis.set_xticks(at if not place else axis.get_xticks(), [str(row["k"]) for row in found])
        axis.axhline(2, color="#9d9d9d", linestyle=":", linewidth=1)
        axis.set_title(f"{kind} questions")
        axis.set_xlabel("adapters of unrelated documents")
    axes[0][0].set_ylabel("points of F1 lost (95 % interval)")
    axes[0][0].legend(fontsize=8)
    _save(figure, path)


def learning_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Plot the loss on held-out passages against steps, with their own adapters (solid) and with others (dashed)."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axis = pyplot.subplots(figsize=(7.5, 4.6))
    for i, (name, history) in enumerate(runs.items()):
        steps = [entry["step"] for entry in history]
        axis.plot(steps, [entry["own"] for entry in history], "-o", color=f"C{i}", label=name, markersize=3)
        axis.plot(steps, [entry["other"] for entry in history], "--", color=f"C{i}", alpha=0.7)
    axis.set_xlabel("steps (dashed: with another passage's adapter)")
    axis.set_ylabel("nats per token of the answer")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    _save(figure, path)


def roc_curves(curves: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Plot hits against false alarms, with a curve for each name."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axis = pyplot.subplots(figsize=(5.5, 5))
    axis.plot([0, 1], [0, 1], "--", color="#9d9d9d", linewidth=1)
    for name, points in curves.items():
        axis.plot([p[0] for p in points], [p[1] for p in points], label=name, alpha=0.8)
    axis.set_xlabel("false alarms")
    axis.set_ylabel("hits")
    axis.legend(fontsize=8, loc="lower right")
    axis.grid(alpha=0.3)
    _save(figure, path)


def crossover_curves(
    queries: Sequence[float], curves: Mapping[str, Sequence[float]], pays: Mapping[str, float], path: Path
) -> None:
    """Plot seconds per query and document against queries between updates; the upper axis shows updates per query."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axis = pyplot.subplots(figsize=(7, 4.8))
    for i, (name, seconds) in enumerate(curves.items()):
        axis.loglog(queries, seconds, color=f"C{i}", label=name)
        crossing = pays.get(name, float("inf"))
        if queries[0] <= crossing <= queries[-1]:
            axis.axvline(crossing, color=f"C{i}", linestyle=":", linewidth=1)
            axis.annotate(f"{crossing:.3g}", (crossing, axis.get_ylim()[0]), fontsize=8, color=f"C{i}")
    axis.set_xlabel("queries for a document between two of its updates")
    axis.set_ylabel("seconds per query and document")
    top = axis.secondary_xaxis("top", functions=(_inverse, _inverse))
    top.set_xlabel("updates per query")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    _save(figure, path)


def throughput_lines(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the speedup over a single session by the number of sessions, with a line per method and dtype."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axis = pyplot.subplots(figsize=(5.5, 4.2))
    names = ("preset", "prompts", "dtype")
    for kind in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        of_it = [row for row in rows if tuple(row[name] for name in names) == kind]
        pairs = sorted((row["sessions"], row["speedup"]) for row in of_it)
        label = f"{kind[0]}, {kind[1]} prompts, {kind[2]}"
        axis.plot(*zip(*pairs, strict=True), marker="o", linestyle="-" if kind[1] == "known" else "--", label=label)
    axis.axhline(1, color="#9d9d9d", linestyle="--", linewidth=1)
    axis.set_xlabel("concurrent sessions")
    axis.set_ylabel("speedup in questions per second")
    axis.legend(fontsize="x-small")
    axis.grid(alpha=0.3)
    _save(figure, path)


def _inverse(x: Any) -> Any:
    import numpy as np

    return 1 / np.maximum(x, 1e-12)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        note("no plots: matplotlib is missing (pip install 'dynprag[viz]')")
        return None
    return plt


def _save(figure: Any, path: Path, *, tight: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=120)
    note(f"wrote {path}")
