"""Evaluate what to ask for: every query formulator at the same points, by the paragraphs that are still missing.

The points are those at which retrieval was needed (`benchmarks.draft_points`). A supporting paragraph is still missing
if no right sentence of the answer so far repeats it. *Recall* is the share of missing paragraphs among the first 1, 3
or 10 that BM25 finds; *next* is how often these include the paragraph from which the right sentence takes its fact, if
that is known. Results are given by hop (one more than the number of paragraphs already known) and by position (the
sentence of the answer); from the third on, both are grouped. `the right sentence` is not a formulator but an upper
bound that cannot be known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import corpus, load_questions
from benchmarks.point_records import Row, add_options, chosen, points_of, written
from benchmarks.runs import load_chat
from benchmarks.scoring import interval, mean
from langgraph_dynrag.evidence import Passage, interleaved, passage
from langgraph_dynrag.queries.base import last_words
from langgraph_dynrag.retrieval.bm25 import BM25Retriever

DEPTHS = (1, 3, 10)
QUERY_TOKENS = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Draft, search and report."""
    options = parser("Query formulators at the same points: recall of what is still missing.", dtype="bfloat16")
    add_options(options)
    args = options.parse_args(arguments)
    if args.squad is not None:
        options.error("--squad has one paragraph per question, which is not a corpus to search; leave it out")
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    found, complete = written(chat, chosen(args), args, deadline)
    retrievers = {p.stem: BM25Retriever.from_documents(corpus(load_questions(p)), k=max(DEPTHS)) for p in args.data}
    searched = {
        name: [searched_point(p, retrievers[name], chat.get_num_tokens) for p in points_of(rows) if p["needed"]]
        for name, rows in found.items()
    }
    groups = {**searched, **({"all": [p for ps in searched.values() for p in ps]} if len(searched) > 1 else {})}
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "complete": complete,
        "machine": machine(),
        "questions": {name: len(rows) for name, rows in found.items()},
        "formulators": {name: summarise(points, args.seed) for name, points in groups.items()},
        "by_hop": {name: by(points, lambda p: min(p["known"], 2) + 1, args.seed) for name, points in groups.items()},
        "by_position": {
            name: by(points, lambda p: min(p["index"], 2) + 1, args.seed) for name, points in groups.items()
        },
    }
    report = _report(figures)
    note(report)
    finish("queries", figures, args.out, report)


def searched_point(point: Row, retriever: BM25Retriever, count: Any) -> Row:
    """Return the point with the ids that each formulator's queries find, best first."""
    ranked = {}
    for name, queries in point["queries"].items():
        cut = [last_words(q, QUERY_TOKENS, count) for q in queries]
        rankings = [_passages(retriever, q) for q in dict.fromkeys(cut) if q]
        ranked[name] = [p["id"] for p in interleaved(rankings, max(DEPTHS))]
    return {**point, "ranked": ranked}


def scores_of(point: Row, name: str) -> dict[str, float | None]:
    """Return the recall of missing paragraphs at each depth, and whether the next one was found."""
    ranked, missing = point["ranked"][name], set(point["missing"])
    scores: dict[str, float | None] = {}
    for depth in DEPTHS:
        scores[f"recall@{depth}"] = len(missing & set(ranked[:depth])) / len(missing) if missing else None
        source = point["source"]
        scores[f"next@{depth}"] = None if source is None else float(source in ranked[:depth])
    return scores


def summarise(points: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """Return one row per formulator, with intervals by bootstrap over questions."""
    rows = []
    for name in points[0]["ranked"] if points else ():
        row: dict[str, Any] = {"formulator": name, "n": len(points)}
        for measure in [f"{kind}@{depth}" for kind in ("recall", "next") for depth in DEPTHS]:
            known = [(s, p["question"].id) for p in points if (s := scores_of(p, name)[measure]) is not None]
            row[measure] = mean([s for s, _ in known])
            row[f"{measure}_interval"] = interval([s for s, _ in known], groups=[g for _, g in known], seed=seed)
            row[f"{measure}_n"] = len(known)
        # Paired by point, so that the difficulty of the points cancels out.
        pairs = [
            (scores_of(p, name)["recall@3"], scores_of(p, "question")["recall@3"], p["question"].id) for p in points
        ]
        gains = [(a - b, q) for a, b, q in pairs if a is not None and b is not None]
        row["over_question"] = mean([g for g, _ in gains])
        row["over_question_interval"] = interval([g for g, _ in gains], groups=[q for _, q in gains], seed=seed)
        rows.append(row)
    return rows


def by(points: Sequence[Row], part: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Return recall at 3 by formulator and part of the points."""
    found: dict[str, dict[str, Any]] = {}
    for value in sorted({part(p) for p in points}):
        of_part = [p for p in points if part(p) == value]
        for row in summarise(of_part, seed):
            cell = {"value": row["recall@3"], "interval": row["recall@3_interval"], "n": row["recall@3_n"]}
            found.setdefault(row["formulator"], {})[str(value)] = cell
    return found


def _passages(retriever: BM25Retriever, query: str) -> list[Passage]:
    made = [passage(d.page_content, d.metadata, d.id) for d in retriever.invoke(query, k=max(DEPTHS))]
    return [p for p in made if p is not None]


def _report(figures: dict[str, Any]) -> str:
    lines = [f"# Queries at the same points: {figures['model']}, {figures['dtype']}, seed {figures['seed']}"]
    for name, rows in figures["formulators"].items():
        shown = []
        for row in rows:
            cells = {"formulator": row["formulator"], "n": row["n"]}
            for measure in [f"{kind}@{depth}" for kind in ("recall", "next") for depth in DEPTHS]:
                low, high = row[f"{measure}_interval"]
                cells[measure] = f"{row[measure]:.2f} [{low:.2f}, {high:.2f}]"
            low, high = row["over_question_interval"]
            cells["recall@3 over question"] = f"{row['over_question']:+.2f} [{low:+.2f}, {high:+.2f}]"
            shown.append(cells)
        lines += [f"\n## {name}\n", table(shown, list(shown[0]) if shown else [])]
    for key, title in (("by_hop", "hop"), ("by_position", "sentence of the answer")):
        name, parts = list(figures[key].items())[-1]
        columns = sorted({value for cells in parts.values() for value in cells})
        rows = [
            {"formulator": f, **{c: f"{cells[c]['value']:.2f} ({cells[c]['n']})" for c in columns if c in cells}}
            for f, cells in parts.items()
        ]
        lines += [f"\n## {name}: recall at 3 by {title} (points)\n", table(rows, ["formulator", *columns])]
    if not figures["complete"]:
        lines.append("\nStopped before the end; run the same command again to continue.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
