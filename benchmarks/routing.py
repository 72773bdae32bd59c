"""Measure how often the passage whose adapter acts is the one that answers the question, without any model.

The candidates are the k best passages of the file, by MiniLM embeddings or by BM25. `retrieval` lets the best-scored
one act, `lexical` the best by standardised retrieval and BM25 scores among the candidates (`route="lexical"`). `recall`
is the share of questions whose passage is a candidate, which no way of choosing can exceed. `acts`: the share of
questions for which `lexical` lets a passage act, if the right one is a candidate; `absent`: the same without it.
Intervals are by bootstrap over passages.

`--fit` computes the coefficients by which `lexical` estimates whether a passage answers the question.
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
from llamaindex_prag.placement.lexical_router import LexicalRouter, bm25_scores, coverage
from llamaindex_prag.placement.routing import RoutingScores
from rag_backbone.loading.minilm import MiniLM


def main(arguments: Sequence[str] | None = None) -> None:
    """Route every question of a file, and report."""
    options = parser("How often the right passage's adapter acts.")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument("--counts", default="3,5,10,20", help="numbers of candidates")
    options.add_argument("--fit", action="store_true", help="only compute coefficients, from train data")
    args = options.parse_args(arguments)
    facts = load_facts(args.data)
    pool = list(dict.fromkeys(f.passage for f in facts))
    titles = {f.passage: f.title for f in facts}
    minilm = MiniLM()
    passages, questions = (np.array(minilm.embed(texts)) for texts in (pool, [f.question for f in facts]))
    lexical = np.array([bm25_scores(f.question, pool) for f in facts])
    if args.fit:
        fitted = fit(*points(facts, pool, titles, questions @ passages.T, [int(k) for k in args.counts.split(",")]))
        note("bias, share of the best sentence: " + ", ".join(f"{w:.2f}" for w in fitted))
        return
    rows = [
        routed(name, int(k), facts, pool, titles, scores)
        for name, scores in (("minilm", questions @ passages.T), ("bm25", lexical))
        for k in args.counts.split(",")
    ]
    report = (
        f"# Whose adapter acts: {args.data.name}\n\n{len(facts)} questions, {len(pool)} passages. Share of questions "
    )
    report += "whose right passage is a candidate (`recall`), or the best of them, with the 95 % interval of the "
    report += "difference by bootstrap over passages; and of those for which `lexical` lets the best one act, with "
    report += "(`acts`) and without (`absent`) the right one among the candidates.\n\n"
    columns = ["retriever", "k", "recall", "retrieval", "lexical", "difference", "interval", "acts", "absent"]
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
    recalled, first, chosen, acts, absent = [], [], [], [], []
    for fact, of in zip(facts, scores, strict=True):
        order = [int(i) for i in np.argsort(-of, kind="stable")]
        found, best = _routed(fact, order[:k], pool, titles, of)
        right = [pool[i] == fact.passage for i in order[:k]]
        recalled.append(float(any(right)))
        first.append(float(right[0]))
        chosen.append(float(right[best]))
        if any(right):
            acts.append(float(not found.refused))
        others = [i for i in order if pool[i] != fact.passage][:k]
        absent.append(float(not _routed(fact, others, pool, titles, of)[0].refused))
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
        "acts": mean(acts),
        "absent": mean(absent),
    }


def _routed(
    fact: Fact, which: Sequence[int], pool: Sequence[str], titles: dict[str, str], scores: NDArray[np.float64]
) -> tuple[RoutingScores, int]:
    """Return how `lexical` scores the candidates, and the index of the best one."""
    candidates = [Candidate(pool[i], pool[i], titles[pool[i]], score=float(scores[i])) for i in which]
    found = LexicalRouter().scores(fact.question, candidates, [None] * len(which))
    return found, int(np.argmax([-np.inf if s is None else s for s in found.scores]))


def points(
    facts: Sequence[Fact],
    pool: Sequence[str],
    titles: dict[str, str],
    scores: NDArray[np.float64],
    counts: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n, 1) shares of words, and (n,) whether the best candidate was the right one.

    Each question counts once for each number of candidates in which the right passage is one, and once without it.
    """
    features, labels = [], []
    for fact, of in zip(facts, scores, strict=True):
        order = [int(i) for i in np.argsort(-of, kind="stable")]
        for k in counts:
            others = [i for i in order if pool[i] != fact.passage][:k]
            for which in (order[:k], others):
                if which is others or any(pool[i] == fact.passage for i in which):
                    _, best = _routed(fact, which, pool, titles, of)
                    passage = pool[which[best]]
                    features.append([coverage(fact.question, Candidate(passage, passage, titles[passage]))])
                    labels.append(float(passage == fact.passage))
    return np.array(features), np.array(labels)


def fit(features: NDArray[np.float64], labels: NDArray[np.float64], *, ridge: float = 1e-3) -> NDArray[np.float64]:
    """Return bias and coefficients of a logistic regression, by Newton's method.

    Args:
        features: (n, features).
        labels: (n,), 0 or 1.
        ridge: Penalty on the squared coefficients, per point.
    """
    x = np.column_stack([np.ones(len(features)), features])
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - labels) / len(x) + ridge * w
        curvature = (x.T * (p * (1 - p))) @ x / len(x) + ridge * np.eye(len(w))
        w -= np.linalg.solve(curvature, gradient)
    return w


if __name__ == "__main__":
    main()
