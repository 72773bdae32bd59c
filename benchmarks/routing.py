"""Measure how often the passage whose adapter acts is the one that answers the question, without any model.

The candidates are the k best passages of the file, by MiniLM embeddings or by BM25. `retrieval` lets the best-scored
one act, `lexical` the best by standardised retrieval and BM25 scores among the candidates (`route="lexical"`). `recall`
is the share of questions whose passage is a candidate, which no way of choosing can exceed. Intervals are by bootstrap
over passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contract import finish, note, parser, table
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, load_facts
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.lexical_router import LexicalRouter, bm25_scores
from rag_backbone.loading.minilm import MiniLM


def main(arguments: Sequence[str] | None = None) -> None:
    """Route every question of a file, and report."""
    options = parser("How often the right passage's adapter acts.")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument("--counts", default="3,5,10,20", help="numbers of candidates")
    args = options.parse_args(arguments)
    facts = load_facts(args.data)
    pool = list(dict.fromkeys(f.passage for f in facts))
    titles = {f.passage: f.title for f in facts}
    minilm = MiniLM()
    passages, questions = (np.array(minilm.embed(texts)) for texts in (pool, [f.question for f in facts]))
    lexical = np.array([bm25_scores(f.question, pool) for f in facts])
    rows = [
        routed(name, int(k), facts, pool, titles, scores)
        for name, scores in (("minilm", questions @ passages.T), ("bm25", lexical))
        for k in args.counts.split(",")
    ]
    report = (
        f"# Whose adapter acts: {args.data.name}\n\n{len(facts)} questions, {len(pool)} passages. Share of questions "
    )
    report += "whose right passage is a candidate (`recall`), or acts. 95 % intervals by bootstrap over passages.\n\n"
    columns = ["retriever", "k", "recall", "retrieval", "lexical", "difference", "interval"]
    report += table(rows, columns)
    note(report)
    figures = {"questions": len(facts), "passages": len(pool), "data": args.data.name, "rows": rows}
    finish("routing", figures, args.out, report)


def routed(
    retriever: str,
    k: int,
    facts: Sequence[Fact],
    pool: Sequence[str],
    titles: dict[str, str],
    scores: NDArray[np.float64],
) -> dict[str, Any]:
    """Return the shares of questions that each way routes right.

    Args:
        retriever: Its name.
        k: Number of candidates.
        facts: The questions.
        pool: All passages.
        titles: Their titles.
        scores: (questions, passages), the retriever's scores.
    """
    recalled, first, chosen = [], [], []
    for fact, of in zip(facts, scores, strict=True):
        best = [int(i) for i in np.argsort(-of, kind="stable")[:k]]
        candidates = [Candidate(pool[i], pool[i], titles[pool[i]], score=float(of[i])) for i in best]
        found = LexicalRouter().scores(fact.question, candidates, [None] * len(best)).scores
        right = [pool[i] == fact.passage for i in best]
        recalled.append(float(any(right)))
        first.append(float(right[0]))
        chosen.append(float(right[int(np.argmax([-np.inf if s is None else s for s in found]))]))
    gained = [a - b for a, b in zip(chosen, first, strict=True)]
    low, high = interval(gained, groups=[f.passage for f in facts])
    return {
        "retriever": retriever,
        "k": k,
        "recall": mean(recalled),
        "retrieval": mean(first),
        "lexical": mean(chosen),
        "difference": mean(gained),
        "low": low,
        "high": high,
        "interval": f"{low:.3f} to {high:.3f}",
    }


if __name__ == "__main__":
    main()
