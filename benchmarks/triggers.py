"""Evaluate when to retrieve, in isolation: every trigger on the same drafts, by whether retrieval was needed.

`benchmarks.draft_points` defines points, and when retrieval was needed at one. Each trigger gives each point a score.
The area under the curve measures how well the scores rank needed points above the others, for any threshold
(`auc_wrong`: points whose sentence is wrong, even if the paragraphs would not have helped). Precision and recall are
given at the preset's threshold, and at the one with the best F1 on other questions (`--train`). The cost is the time of
judging relative to drafting, measured one question at a time on the first questions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, load_questions, sample
from benchmarks.draft_points import PointWriter
from benchmarks.point_records import Row, add_options, chosen, points_of, record_key, written
from benchmarks.runs import Records, load_chat
from benchmarks.scoring import mean, roc_area
from langgraph_dynrag.short_answer import short_answer
from rag_backbone.metrics import f1

ANSWER_PHRASE = "So the answer is"
_DRAWS = 2_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Draft, judge and report."""
    options = parser("Triggers on the same drafts: precision, recall, area under the curve, cost.", dtype="bfloat16")
    add_options(options)
    options.add_argument("--train", type=Path, nargs="+", default=[], help="files whose drafts choose the thresholds")
    options.add_argument("--train-questions", type=int, default=20, help="questions from each of --train")
    options.add_argument("--timed", type=int, default=5, help="questions whose judging is timed, one at a time")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    questions = chosen(args)
    found, complete = written(chat, questions, args, deadline)
    tuned = {p.stem: sample(load_questions(p), args.train_questions, args.seed) for p in args.train}
    tuning, done = written(chat, tuned, args, deadline)
    first, asked = next(iter(questions.items()))
    writer = PointWriter(chat, samples=args.samples)
    costs = measured_costs(writer, first, asked[: args.timed], args.dtype, deadline)
    thresholds = best_thresholds([p for rows in tuning.values() for p in points_of(rows)])
    groups = {**found, **({"all": [r for rows in found.values() for r in rows]} if len(found) > 1 else {})}
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "samples": args.samples,
        "complete": complete and done,
        "machine": machine(),
        "train_questions": sum(map(len, tuning.values())),
        "drafts": {name: drafts_summary(rows) for name, rows in groups.items()},
        "triggers": {name: summarise(points, thresholds, args.seed) for name, points in judged_groups(groups).items()},
        "cost": costs,
    }
    report = _report(figures)
    note(report)
    finish("triggers", figures, args.out, report)


def judged_groups(groups: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Return the points of each group, and those of the last group without sentences that give the short answer."""
    found = {name: points_of(rows) for name, rows in groups.items()}
    last = list(found)[-1]
    return {**found, f"{last}, statements": [p for p in found[last] if ANSWER_PHRASE not in p["sentence"]]}


def drafts_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarise drafts: the number of points, and the F1 of the answers without and with correction."""
    points = points_of(rows)
    scores = {}
    for name in ("unaided", "corrected"):
        said = [(short_answer(r[name], ANSWER_PHRASE) if ANSWER_PHRASE in r[name] else "", r) for r in rows]
        scores[name] = mean([f1(answer, r["question"].answers) for answer, r in said])
    return {
        "questions": len(rows),
        "points": len(points),
        "needed": sum(p["needed"] for p in points),
        "wrong without": sum(p["without"] == "wrong" for p in points),
        "right with": sum(p["with"] == "right" for p in points),
        "f1 unaided": scores["unaided"],
        "f1 corrected": scores["corrected"],
    }


def summarise(points: Sequence[Row], thresholds: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """Return one row per trigger."""
    rows = []
    for name in names_of(points):
        seen = judged(points, name)
        labels, groups = [bool(p["needed"]) for p in seen], [p["question"].id for p in seen]
        scores = scores_of(seen, name)
        area, low, high = roc_area(scores, labels, groups=groups, seed=seed)
        row = {"trigger": name, "n": len(seen), "auc": area, "auc_interval": (low, high)}
        wrong = [p["without"] == "wrong" for p in seen]
        area, low, high = roc_area(scores, wrong, groups=groups, seed=seed)
        row |= {"auc_wrong": area, "auc_wrong_interval": (low, high)}
        fired = [p["triggers"][name]["fires"] for p in seen]
        if all(f is not None for f in fired):
            row["preset"] = rates(fired, labels, groups, seed)
        if name in thresholds:
            row["tuned"] = {
                "threshold": thresholds[name],
                **rates([s >= thresholds[name] for s in scores], labels, groups, seed),
            }
        rows.append(row)
    return rows


def names_of(points: Sequence[Row]) -> list[str]:
    """Return the triggers that have judged any of the points."""
    return list(dict.fromkeys(name for p in points for name in p["triggers"]))


def judged(points: Sequence[Row], name: str) -> list[Row]:
    """Return the points that a trigger has judged."""
    return [p for p in points if name in p["triggers"]]


def scores_of(points: Sequence[Row], name: str) -> list[float]:
    """Return the scores of a trigger; a missing score (no content word) counts as the lowest."""
    scores = [p["triggers"][name]["score"] for p in points]
    return [-1e9 if s is None else float(s) for s in scores]


def rates(fired: Sequence[bool], labels: Sequence[bool], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """Return precision and recall with 95 % bootstrap intervals over questions, and how often the trigger fires."""
    hit = np.asarray([f and y for f, y in zip(fired, labels, strict=True)], float)
    counts = np.stack([hit, np.asarray(fired, float), np.asarray(labels, float)], 1)
    keys = np.unique(list(groups), return_inverse=True)[1]
    sums = np.zeros((keys.max() + 1, 3))
    np.add.at(sums, keys, counts)
    rng = np.random.default_rng(seed)
    drawn = sums[rng.integers(0, len(sums), (_DRAWS, len(sums)))].sum(1)
    total = counts.sum(0)
    found: dict[str, Any] = {"fires": float(counts[:, 1].mean())}
    for name, column in (("precision", 1), ("recall", 2)):
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = drawn[:, 0] / drawn[:, column]
        found[name] = float(total[0] / total[column]) if total[column] else float("nan")
        usable = samples[np.isfinite(samples)]
        bounds = np.percentile(usable, [2.5, 97.5]) if len(usable) else (float("nan"), float("nan"))
        found[f"{name}_interval"] = (float(bounds[0]), float(bounds[1]))
    return found


def best_thresholds(points: Sequence[Row]) -> dict[str, float]:
    """Return the threshold of each trigger with the best F1 on these points; the highest if several are best."""
    found: dict[str, float] = {}
    for name in names_of(points):
        seen = judged(points, name)
        labels, scores = np.asarray([bool(p["needed"]) for p in seen]), np.asarray(scores_of(seen, name))
        best = 0.0
        for threshold in sorted(set(scores.tolist()), reverse=True):
            said = scores >= threshold
            value = 2 * (said & labels).sum() / (said.sum() + labels.sum())
            if value > best:
                best, found[name] = float(value), float(threshold)
    return found


def measured_costs(
    writer: PointWriter, data: str, questions: Sequence[Question], dtype: str, deadline: Deadline
) -> dict[str, dict[str, float]]:
    """Measure seconds of judging over seconds of drafting the same tokens, one question at a time."""
    records = Records("draft_points")
    rows = []
    for question in questions:
        key = record_key(writer, data, question, dtype, timed=True)
        row = records.get(key)
        if row is None and not deadline.over:
            started = time.perf_counter()
            drafted = writer.plain_draft(question)
            plain = time.perf_counter() - started
            row = {"tokens": drafted, "plain": plain, "points": writer.write(question)["points"]}
            records.put(key, {"file": data, "question": question.id, "timed": True}, row)
        if row is not None:
            rows.append(row)
    if not rows or not sum(r["tokens"] for r in rows):
        return {}
    each = sum(r["plain"] for r in rows) / sum(r["tokens"] for r in rows)
    points = [p for r in rows for p in r["points"]]
    tokens = sum(p["tokens"] for p in points)
    return {
        name: {
            "seconds_a_token": sum(p["triggers"][name]["seconds"] for p in points) / tokens,
            "over_drafting": sum(p["triggers"][name]["seconds"] for p in points) / tokens / each,
            "sampled_tokens_a_token": sum(p["triggers"][name].get("sampled", 0) for p in points) / tokens,
        }
        for name in points[0]["triggers"]
    }


def _report(figures: dict[str, Any]) -> str:
    title = f"# Triggers on the same drafts: {figures['model']}, {figures['dtype']}, seed {figures['seed']}"
    lines = [
        title,
        "",
        table(
            [{"data": k, **v} for k, v in figures["drafts"].items()], ["data", *next(iter(figures["drafts"].values()))]
        ),
    ]
    for name, rows in figures["triggers"].items():
        shown = []
        for row in rows:
            cells = {"trigger": row["trigger"], "n": row["n"], "auc": _with_interval(row["auc"], row["auc_interval"])}
            cells["auc, wrong"] = _with_interval(row["auc_wrong"], row["auc_wrong_interval"])
            for which in ("preset", "tuned"):
                for part in ("fires", "precision", "recall") if which in row else ():
                    value, bounds = row[which][part], row[which].get(f"{part}_interval")
                    cells[f"{part} ({which})"] = f"{value:.2f}" if bounds is None else _with_interval(value, bounds)
            cost = figures["cost"].get(row["trigger"], {})
            shown.append({**cells, "cost": cost.get("over_drafting")})
        columns = ["trigger", "n", "auc", "auc, wrong"]
        columns += [f"{part} ({which})" for which in ("preset", "tuned") for part in ("fires", "precision", "recall")]
        lines += [f"\n## {name}\n", table(shown, [*columns, "cost"])]
    lines.append("\nCost: seconds of judging over seconds of drafting the same tokens.")
    if not figures["complete"]:
        lines.append("\nStopped before the end; run the same command again to continue.")
    return "\n".join(lines)


def _with_interval(value: float, bounds: Sequence[float]) -> str:
    return f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


if __name__ == "__main__":
    main()
