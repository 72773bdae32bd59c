"""How much do threshold and retrieval cap matter? Sweep both, and report F1 against cost with the Pareto points.

Tune on a train file, report on a dev file. The grids below span the scores that the evaluation model gives on training
questions, from a threshold that nearly every sentence passes to one that almost no sentence passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare_methods import EXEMPLARS, TOKENS, common_records, job
from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import corpus, load_questions, sample
from benchmarks.runs import Job, Records, SamePrefix, load_chat, run, run_timed, timed
from benchmarks.scoring import interval, mean
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.presets.methods import get_preset
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers import ETC, RIND, TokenProbability

GRIDS: dict[str, tuple[float, ...]] = {
    "flare": (0.1, 0.3, 0.5, 0.8, 0.95),
    "dragin": (0.005, 0.02, 0.1, 0.3, 0.6),
    "etc": (0.25, 0.5, 1.0, 2.0, 4.0),
    "dragin_reference": (0.8, 2.0, 4.0, 6.0, 8.0),
    "etc_reference": (1.3, 3.0, 4.5, 6.0, 8.0),
}
NO_CAP = Budgets().retrievals
Setting = tuple[str, float, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("A sweep over threshold and retrieval cap of a trigger.")
    options.add_argument("--data", type=Path, required=True, help="a file of questions")
    options.add_argument("--questions", type=int, default=30)
    options.add_argument("--methods", nargs="+", default=["flare", "dragin"], choices=list(GRIDS))
    options.add_argument("--thresholds", type=float, nargs="+", help="instead of the grid; with a single method")
    options.add_argument("--caps", type=int, nargs="+", default=[1, 3, NO_CAP], help="maximum retrievals per question")
    options.add_argument("--timed", type=int, default=5, help="questions that are also timed, one at a time")
    options.add_argument("--sessions", type=int, default=8, help="concurrent questions, except in the timed pass")
    options.add_argument("--k", type=int, default=3)
    args = options.parse_args(arguments)
    if args.thresholds and len(args.methods) != 1:
        options.error("--thresholds needs exactly one of --methods")
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    everything = load_questions(args.data)
    retriever = BM25Retriever.from_documents(corpus(everything))
    questions = sample(everything, args.questions, args.seed)
    records = Records("questions")
    settings = [(m, t, c) for m in args.methods for t in (args.thresholds or GRIDS[m]) for c in args.caps]
    jobs: dict[Setting, list[Job]] = {s: [] for s in settings}
    for question in questions:
        for method, threshold, cap in settings:
            changes = _changes(method, threshold, cap)
            asked = job(chat, retriever, question, method, args.k, dtype=args.dtype, path=args.data, changes=changes)
            jobs[method, threshold, cap].append(asked)
    turns = [jobs[s][i] for i in range(len(questions)) for s in settings]
    complete = run(turns, records, deadline, args.sessions)
    timed_turns = [jobs[s][i] for i in range(min(args.timed, len(questions))) for s in settings]
    complete &= run_timed(timed_turns, records, deadline, SamePrefix(chat, reasoned_prompt(EXEMPLARS)))
    points = _points(jobs, records, args.seed)
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "data": args.data.stem,
        "seed": args.seed,
        "k": args.k,
        "complete": complete,
        "machine": machine(),
        "points": points,
    }
    report = _report(figures)
    note(report)
    finish("trigger_sensitivity", figures, args.out, report)


def _changes(method: str, threshold: float, cap: int) -> dict[str, Any] | None:
    bundle: Any = "reference" if method.endswith("_reference") else "paper"
    kinds: dict[str, Any] = {"dragin": lambda: RIND(threshold, bundle), "etc": lambda: ETC(threshold, bundle)}
    trigger = kinds.get(method.removesuffix("_reference"), lambda: TokenProbability(threshold))()
    preset = get_preset(method.removesuffix("_reference"), bundle=bundle)
    if cap == NO_CAP and trigger == preset.settings["trigger"]:
        return None  # the preset itself; other experiments may have recorded it
    return {"trigger": trigger, "budgets": Budgets(retrievals=cap, tokens=TOKENS)}


def _points(jobs: dict[Setting, list[Job]], records: Records, seed: int) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    answered = common_records(jobs, records, lambda about: about)
    clocked = common_records(jobs, records, timed)
    for setting, done in answered.items():
        method, threshold, cap = setting
        points.append(
            {
                "method": method,
                "threshold": threshold,
                "cap": cap,
                "n": len(done),
                "f1": mean([r["f1"] for r in done]),
                "f1_interval": interval([r["f1"] for r in done], seed=seed),
                "em": mean([r["em"] for r in done]),
                "recall": mean([r["recall"] for r in done]),
                "retrievals": mean([r["retrievals"] for r in done]),
                "generated_tokens": mean([r["generated_tokens"] for r in done]),
                "timed": len(clocked[setting]),
                "forward_tokens": mean([r["forward_tokens"] for r in clocked[setting]]),
                "seconds": mean([r["seconds"] for r in clocked[setting]]),
            }
        )
    for cost in costs_of(points):
        best = _undominated(points, cost)
        for i, point in enumerate(points):
            point.setdefault("pareto", []).extend([cost] if i in best else [])
    return points


def costs_of(points: Sequence[dict[str, Any]]) -> list[str]:
    """Return the costs to compare F1 with: retrievals, and seconds if every point was timed."""
    return ["retrievals", "seconds"] if all(p["timed"] for p in points) else ["retrievals"]


def _undominated(points: Sequence[dict[str, Any]], cost: str) -> set[int]:
    """Return the points that no other dominates, with at least their F1 at no more cost and one of the two better."""
    return {
        i
        for i, point in enumerate(points)
        if not any(
            other["f1"] >= point["f1"]
            and other[cost] <= point[cost]
            and (other["f1"], -other[cost]) != (point["f1"], -point[cost])
            for other in points
        )
    }


def _report(figures: dict[str, Any]) -> str:
    title = f"# Trigger sensitivity: {figures['model']}, {figures['dtype']}, {figures['data']}, seed {figures['seed']}"
    rows = []
    for p in figures["points"]:
        low, high = p["f1_interval"]
        cap = "none" if p["cap"] == NO_CAP else p["cap"]
        pareto = ", ".join(p["pareto"])
        rows.append({**p, "f1": f"{p['f1']:.3f} [{low:.2f}, {high:.2f}]", "cap": cap, "pareto": pareto})
    columns = ["method", "threshold", "cap", "n", "f1", "em", "recall", "retrievals", "forward_tokens", "seconds"]
    text = f"{title}\n\nPareto: no other point has at least this F1 at no more of the named cost.\n\n"
    text += table(rows, [*columns, "pareto"])
    return text if figures["complete"] else text + "\n\nStopped before the end; run the same command again to continue."


if __name__ == "__main__":
    main()
