"""The plots of parametric RAG: facts recovered, documents, forgetting, translators, contradictions, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.plots.parts import SPAN, Figures, counted, data_name, dodged, draw_rows, model_of, numbers
from rag_backbone import plot_style as style

CONDITIONS = {
    "closed": "closed book",
    "context": "passage in the prompt",
    "warm-up": "warm-up adapter (no document)",
    "own": "the passage's adapter",
    "other": "another passage's adapter",
    "combined": "passage and its adapter",
    "unrelated": "passage, another's adapter",
    "int4": "the passage's adapter, 4 bits",
}
MODES = {
    "context": "text in the prompt",
    "parametric": "adapters, mean",
    "summed": "adapters, sum",
    "translated": "translated adapters",
    "combined": "text and adapters",
}
CHOICES = {
    "single": "right passage's adapter",
    "always": "routed by words",
    "lexical": "by words, may refuse",
    "minilm": "routed by MiniLM",
    "ask": "routed by asking",
    "context middle": "texts, right in the middle",
}
QUESTIONS = {
    "closed": "closed book",
    "context": "its own passage in the prompt",
    "own": "closed book, adapter of its own passage",
}


def fidelity(figures: Figures) -> Any:
    """Draw F1 of each condition with its interval, with axes for each way to create adapters."""
    makers = {name: part for name, part in figures.items() if isinstance(part, Mapping) and part.get("n")}
    if not makers:
        return None
    counts = [len(part["conditions"]) for part in makers.values()]
    figure, axes = style.new_figure(
        "What adapters keep of a passage",
        f"{SPAN} {model_of(figures)}",
        rows=len(makers),
        height=1.2 + 1.05 * len(makers) + 0.27 * sum(counts),
        height_ratios=counts,
        sharex=True,
    )
    for axis, (maker, part) in zip(axes[:, 0], makers.items(), strict=True):
        rows = part["conditions"]
        names = [row["condition"].removeprefix(f"{maker} ") for row in rows]
        style.name_rows(axis, [CONDITIONS.get(name, name) for name in names])
        draw_rows(axis, range(len(rows)), rows, "f1", ("low", "high"))
        axis.set_title(f"{maker}, n = {part['n']}\n({part['passages']} passages)", pad=20)
    axes[0][0].set_xlim(left=0)
    for axis, part in zip(axes[:, 0], makers.values(), strict=True):
        known = {row["condition"]: row["f1"] for row in part["conditions"]}
        for name, text in (("closed", "closed book"), ("context", "with the text")):
            if known.get(name) is not None:
                style.reference(axis, known[name], f"{text}: {known[name]:.0f}")
    axes[-1][0].set_xlabel("F1 (percent)")
    return figure


def lengths(figures: Figures) -> Any:
    """Draw F1, prompt tokens and seconds against the number of documents, with a line for each mode."""
    rows = [row for row in figures["rows"] if row["gold"] == "all"]
    if not rows:
        return None
    counts = sorted({row["documents"] for row in rows})
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    figure, axes = style.new_figure(
        "F1 and cost as the documents grow in number",
        f"{SPAN} n = {figures['questions']} questions ({counted(row['n'] for row in rows)} answers a point),\n"
        f"{figures['timed']} timed; {data_name(figures['data'])}; {model_of(figures)}",
        rows=3,
        height=7.2,
        sharex=True,
        height_ratios=(1.6, 1, 1),
    )
    top, *others = axes[:, 0]
    for i, (mode, at) in enumerate(zip(modes, dodged(len(modes)), strict=True)):
        of = [row for row in rows if row["mode"] == mode]
        places = [counts.index(row["documents"]) + at for row in of]
        label = MODES.get(mode, mode)
        draw_rows(top, places, of, "f1", ("low", "high"), index=i, label=label, vertical=True, line=True)
        for axis, measure in zip(others, ("prompt tokens", "s to first token"), strict=True):
            axis.plot(places, numbers(of, measure), **style.look(i))
    for axis, label in zip(others, ("prompt tokens", "seconds to the\nfirst token"), strict=True):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylabel(label)
    top.set_ylim(bottom=-3)
    top.set_ylabel("F1 (percent)")
    base = next((row["f1"] for row in rows if row["mode"] == "context" and row["documents"] == counts[0]), None)
    if base is not None:
        text = (
            f"text of\n{counts[0]} docu-\nment: {base:.0f}" if counts[0] == 1 else f"text of\n{counts[0]}: {base:.0f}"
        )
        style.reference(top, base, text, horizontal=True)
    others[-1].set_xticks(range(len(counts)), [str(count) for count in counts])
    others[-1].set_xlabel("documents")
    style.legend(top, columns=2)
    return figure


def several(figures: Figures) -> Any:
    """Draw F1 against the number of retrieved passages, with and without the right one, and the seconds of each way."""
    rows = figures["rows"]
    counts = sorted({row["k"] for row in rows if row["k"]})
    if not counts:
        return None
    closed = next(row["f1"] for row in rows if row["way"] == "closed book")
    figure, axes = style.new_figure(
        "Several retrieved passages: whose adapter acts",
        f"{SPAN} n = {counted(row['n'] for row in rows)} questions a point; {figures['pool']} passages of\n"
        f"{data_name(figures['data'])}; {model_of(figures)}",
        rows=3,
        height=8.2,
        sharex=True,
        height_ratios=(1.7, 1, 1),
    )
    for axis, ending in zip(axes[:2, 0], ("", ", right passage absent"), strict=True):
        shown = [(i, w) for i, w in enumerate(CHOICES) if any(row["way"] == w + ending for row in rows)]
        for (i, way), at in zip(shown, dodged(len(shown)), strict=True):
            of = [row for row in rows if row["way"] == way + ending]
            places = [counts.index(row["k"]) + at for row in of]
            label = CHOICES[way] if not ending else ""
            draw_rows(axis, places, of, "f1", ("low", "high"), index=i, label=label, vertical=True, line=True)
        axis.set_ylim(bottom=-1)
        axis.set_ylabel("F1 (percent)" + ("\nwithout the right one" if ending else ""))
        style.reference(axis, closed, f"closed\nbook: {closed:.0f}", horizontal=True)
    for i, way in enumerate(CHOICES):
        name = "context" if way == "context middle" else way
        if seconds := {k: figures["seconds"][f"{name} {k}"] for k in counts if f"{name} {k}" in figures["seconds"]}:
            axes[2][0].plot([counts.index(k) for k in seconds], list(seconds.values()), **style.look(i))
    axes[2][0].set_yscale("log")
    axes[2][0].minorticks_off()
    axes[2][0].set_ylim(0.1, 2 * max(figures["seconds"].values(), default=5.0))
    axes[2][0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[2][0].set_ylabel("seconds to the\nfirst token")
    axes[2][0].set_xticks(range(len(counts)), [str(count) for count in counts])
    axes[2][0].set_xlabel("retrieved passages")
    style.legend(axes[0][0], columns=2)
    return figure


def forgetting(figures: Figures) -> Any:
    """Draw the points of F1 lost: axes per kind of question, rows per number of adapters, a series per bound."""
    rows = [row for row in figures["rows"] if row["n"]]
    if not rows:
        return None
    kinds = list(dict.fromkeys(row["question"] for row in rows))
    bounds = list(dict.fromkeys(row["bound"] for row in rows))
    counts = {kind: sorted({row["k"] for row in rows if row["question"] == kind}) for kind in kinds}
    figure, axes = style.new_figure(
        "F1 lost to adapters of unrelated documents",
        f"{SPAN} n = {counted(row['n'] for row in rows)} questions per row\n"
        f"{data_name(figures['data'])}; bounds in nats per token; {model_of(figures)}",
        rows=len(kinds),
        height=1.6 + 0.75 * len(kinds) + 0.55 * sum(map(len, counts.values())),
        sharex=True,
        height_ratios=[len(of) + 0.3 for of in counts.values()],
    )
    for axis, kind in zip(axes[:, 0], kinds, strict=True):
        style.name_rows(axis, [f"{k} adapter{'s' * (k != 1)}" for k in counts[kind]])
        for i, (bound, at) in enumerate(zip(bounds, dodged(len(bounds)), strict=True)):
            of = [row for row in rows if (row["question"], row["bound"]) == (kind, bound)]
            places = [counts[kind].index(row["k"]) + at for row in of]
            label = bound if isinstance(bound, str) else f"guard at {bound:g}"
            draw_rows(axis, places, of, "drop", ("low", "high"), index=i, label=label)
        axis.set_title(QUESTIONS.get(kind, kind), pad=6 if axis is not axes[0][0] else 20)
    for axis in axes[:, 0]:
        style.reference(axis, 0, "nothing lost" if axis is axes[0][0] else "")
    axes[-1][0].set_xlabel("points of F1 lost (below 0: gained)")
    style.legend(axes[0][0], columns=len(bounds), lift=42)
    return figure


def learning(curves: Mapping[str, Sequence[Figures]], evaluations: Mapping[str, Figures]) -> Any:
    """Draw the loss on held-out passages by step, and the paired differences on the passages of other data.

    Args:
        curves: Histories of the trainings, by name.
        evaluations: Figures of `benchmarks.translator_learning`, by data.
    """
    pairs = [
        (kind, data, of)
        for data, of in evaluations.items()
        for kind, found in of.items()
        if isinstance(found, Mapping) and "other - own" in found
    ]
    figure, (above, below) = style.new_figure(
        "Loss while translators learn, and how much\na passage's own adapter lowers it",
        "Lines below: 95 % bootstrap intervals. Above: one run each.\n" + model_of(next(iter(evaluations.values()))),
        rows=2,
        height=4.9 + 0.55 * len(pairs),
        height_ratios=(3, 0.6 + 0.6 * len(pairs)),
    )
    axis, bottom = above[0], below[0]
    for i, (name, history) in enumerate(curves.items()):
        look, steps = style.look(i), [entry["step"] for entry in history]
        axis.plot(steps, numbers(history, "own"), **{**look, "linestyle": "-"}, label=name)
        axis.plot(steps, numbers(history, "other"), color=look["color"], linestyle="--", marker="none", lw=1.4)
    base = next(iter(curves.values()))[0]["base"]
    axis.set_xlabel("steps")
    axis.set_ylabel("loss (nats per token)")
    style.legend(axis, title="solid: own adapter; dashed: another passage's")
    axis.set_ylim(top=base + 0.4)
    style.reference(axis, base, f"base:\n{base:.2f}", horizontal=True)
    style.name_rows(bottom, [f"{kind}, {data_name(data)}\nn = {of['passages']} passages" for kind, data, of in pairs])
    for i, (name, at) in enumerate(zip(("other - own", "mean - own"), dodged(2), strict=True)):
        found = [of[kind][name] for kind, _, of in pairs]
        label = {"other - own": "another passage's adapter", "mean - own": "the mean adapter"}[name]
        draw_rows(bottom, np.arange(len(pairs)) + at, found, "mean", ("low", "high"), index=i, label=label)
    bottom.set_xlabel("loss above that of the passage's own adapter (nats per token)")
    style.reference(bottom, 0, "no difference")
    style.legend(bottom, columns=2, lift=20)
    return figure


def conflicts(figures: Figures) -> Any:
    """Draw the area under the curve of each measure, and the scores of the judged pairs by kind, once all are known."""
    rows = figures["rows"]
    if not figures["complete"]:
        return None
    figure, (above, below) = style.new_figure(
        "Contradicting passages, found by their adapters",
        f"{SPAN} {model_of(figures)}\nn: pairs that contradict each other + others; points below: one pair each",
        rows=2,
        height=2.9 + 0.36 * len(rows) + 0.8 * len(figures["by_kind"]),
        height_ratios=(len(rows), 2.2 * len(figures["by_kind"])),
    )
    axis, bottom = above[0], below[0]
    style.name_rows(axis, [f"{row['name']}\nn = {row['contradictions']} + {row['others']}" for row in rows])
    spans = [tuple(map(float, row["area interval"].split(" to "))) for row in rows]
    style.intervals(axis, range(len(rows)), numbers(rows, "area"), spans)
    axis.set_xlim(0, 1.03)
    axis.set_xlabel("area under the curve")
    style.reference(axis, 0.5, "chance: 0.5")
    kinds = figures["by_kind"]
    style.name_rows(bottom, [f"{kind}\nn = {len(scores)}" for kind, scores in kinds.items()])
    step = max(score for scores in kinds.values() for score in scores) / 40 or 1.0  # nearer points would be hidden
    for i, scores in enumerate(kinds.values()):
        seen: dict[int, int] = {}
        for score in scores:
            near = int(score / step)
            same = seen[near] = seen.get(near, -1) + 1
            place = i + 0.075 * ((same + 1) // 2) * (-1) ** same
            bottom.plot(score, place, **{**style.look(i), "linestyle": "none", "markersize": 6})
    bottom.set_xlabel("conflict of the judged pairs (nats)")
    style.reference(bottom, figures["bound"], f"bound: {figures['bound']:.2f} nats")
    return figure


def scalability(figures: Figures) -> Any:
    """Draw seconds per query against queries between updates, and F1 by way and number of documents."""
    from llamaindex_prag.placement.costs import Costs

    rows = [row for row in figures["rows"] if row["n"]]
    if not rows:
        return None
    costs, tokens = Costs(**figures["costs"]), figures["tokens"]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    sizes = sorted({row["documents"] for row in rows})
    figure, (above, below) = style.new_figure(
        "When adapters cost less than reading the text",
        f"{SPAN} n = {counted(row['n'] for row in rows)} questions per row\n"
        f"{data_name(figures['data'])}, documents of {tokens} tokens; {model_of(figures)}",
        rows=2,
        height=4.9 + 0.55 * len(sizes),
        height_ratios=(2.6, 0.6 + 0.55 * len(sizes)),
    )
    axis, bottom = above[0], below[0]
    queries = np.logspace(-1, 5, 61)
    context = costs.each("context", tokens)
    axis.set(xscale="log", yscale="log", xlim=(queries[0], queries[-1]))
    for i, way in enumerate(ways):
        if way != "context":
            seconds = costs.each(way, tokens) + costs.once(way, tokens) / queries
            crossing = figures["crossover_queries"].get(way)
            pays = "never cheaper than the text" if crossing is None else f"cheaper from {crossing:.3g} queries on"
            axis.plot(queries, seconds, **style.look(i), markevery=(5 + 2 * i, 10), label=f"{way}: {pays}")
    style.legend(axis, columns=1)
    style.reference(axis, context, f"text in\nthe prompt:\n{context:.2g} s", horizontal=True)
    axis.set_xlabel("queries for a document between two of its updates")
    axis.set_ylabel("seconds per query\nand document")
    style.name_rows(bottom, [f"{size:,} documents" for size in sizes])
    for i, (way, at) in enumerate(zip(ways, dodged(len(ways)), strict=True)):
        of = [row for row in rows if row["way"] == way]
        places = [sizes.index(row["documents"]) + at for row in of]
        draw_rows(bottom, places, of, "f1", ("low", "high"), index=i, label=way)
    bottom.set_xlim(left=-0.5)
    bottom.set_xlabel("F1 (percent)")
    style.legend(bottom)
    return figure


def translator_run(figures: Figures) -> Any:
    """Draw the learning of one run of `benchmarks.translator_learning`, and its evaluation."""
    curves = {f"{run['kind']}, {run['learning_rate']:g}": run["history"] for run in figures["runs"]}
    return learning(curves, {figures["data"]: figures}) if curves else None
