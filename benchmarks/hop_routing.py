"""Whose adapter acts in a question of several hops, search by search, and by which words it should be chosen.

A graph that puts passages into the weights chooses one of them after each search. Its answer is in *several* passages,
so another one should act in another hop. Methods that search several times answer multi-hop questions with the texts of
what BM25 finds in the prompt; their queries are kept. Then, for each query in order, one of the k passages acts that
BM25, or MiniLM, finds best:

    search              the best-scored one (`route="retrieval"`)
    question            by scores and the words of the question (`route="lexical"`)
    query               by scores and the words of the query
    question and query  by scores and the words of both

`acted` is the share of the supporting passages that act after some search of an answer, `first` after its first one.
`found` is the share among the k candidates of any search, which no choice exceeds. `acts` is the share of the searches
after which a passage acts, and `right` that of them whose passage is a supporting one. `changed` is the share of the
answers with several searches in which different passages act. No adapter is needed. Differences to `question` are
paired; intervals are by bootstrap over questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document

from benchmarks.compare_methods import common_records, job
from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, corpus, load_questions, sample
from benchmarks.runs import Records, load_chat, run
from benchmarks.scoring import interval, mean
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.presets.methods import PRESETS
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.lexical_router import LexicalRouter
from rag_backbone.loading.minilm import MiniLM

Search = Callable[[str], Sequence[Candidate]]
"""Finds the best passages for a query, best first."""
WAYS = ("search", "question", "query", "question and query")


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer what is missing, choose after every search, and report."""
    options = parser("Whose adapter acts, search by search.", dtype="bfloat16")
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of questions")
    options.add_argument("--questions", type=int, default=50, help="questions from each file")
    options.add_argument(
        "--methods", nargs="+", default=["iter_retgen", "ircot"], help="presets whose queries are used"
    )
    options.add_argument("--sessions", type=int, default=16, help="concurrent questions")
    options.add_argument("--k", type=int, default=3, help="passages per search")
    args = options.parse_args(arguments)
    if unknown := [m for m in args.methods if m not in PRESETS]:
        options.error(f"--methods {unknown[0]}: known are {', '.join(PRESETS)}")
    chat, records, complete = load_chat(args.model, args.dtype), Records("questions"), True
    deadline = Deadline(args.max_minutes)
    data: dict[str, list[dict[str, Any]]] = {}
    minilm = MiniLM()
    for path in args.data:
        everything = load_questions(path)
        documents = corpus(everything)
        retriever = BM25Retriever.from_documents(documents)
        searches = {"bm25": by_words(retriever, args.k), "minilm": by_vectors(minilm, documents, args.k)}
        chosen = sample(everything, args.questions, args.seed)
        jobs = {
            m: [job(chat, retriever, q, m, args.k, dtype=args.dtype, path=path) for q in chosen] for m in args.methods
        }
        complete &= run([by[i] for i in range(len(chosen)) for by in jobs.values()], records, deadline, args.sessions)
        for method, done in common_records(jobs, records, lambda about: about).items():
            for name, search in searches.items():
                routed = [hops(q, r["queries"], search) for q, r in zip(chosen, done, strict=False)]
                data.setdefault(path.stem, []).extend(rows_of(method, name, routed, args.seed))
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "k": args.k,
        "complete": complete,
        "machine": machine(),
        "data": data,
    }
    report = report_of(figures)
    note(report)
    finish("hop_routing", figures, args.out, report)


def by_words(retriever: BM25Retriever, k: int) -> Search:
    """Return the search for the k passages with the best BM25 scores."""
    return lambda query: [_candidate(d) for d in retriever.model_copy(update={"k": k}).invoke(query)]


def by_vectors(minilm: MiniLM, documents: Sequence[Document], k: int) -> Search:
    """Return the search for the k passages with the greatest cosine similarity."""
    vectors = np.array(minilm.embed([f"{d.metadata['title']}\n{d.page_content}" for d in documents]))

    def search(query: str) -> list[Candidate]:
        cosines = vectors @ np.array(minilm.embed([query])[0])
        best = np.argsort(-cosines, kind="stable")[:k].tolist()
        return [replace(_candidate(documents[i]), score=float(cosines[i])) for i in best]

    return search


def hops(question: Question, queries: Sequence[str], search: Search) -> dict[str, Any]:
    """Return which passages act after each query, in each way.

    Returns:
        `supporting` and `found` (sets of ids), `searches`, and by way the ids of the passages that act, in order; None
        where the words refuse all candidates.
    """
    acting: dict[str, list[str | None]] = {way: [] for way in WAYS}
    found: set[str] = set()
    for query in queries:
        candidates = search(query)
        found |= {c.id for c in candidates}
        acting["search"].append(candidates[0].id if candidates else None)
        words = {"question": question.text, "query": query, "question and query": f"{question.text} {query}"}
        for way, text in words.items():
            acting[way].append(_acts(text, candidates))
    return {"supporting": question.supporting, "found": found, "searches": len(queries), **acting}


def rows_of(method: str, retriever: str, routed: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return one row for each way of choosing."""

    def acted(way: str, *, first: bool = False) -> list[float]:
        return [len(set(r[way][: 1 if first else None]) & r["supporting"]) / len(r["supporting"]) for r in routed]

    rows: list[dict[str, Any]] = []
    usual = acted("question")
    for way in WAYS:
        every, several = acted(way), [r for r in routed if r["searches"] > 1]
        row = {"method": method, "retriever": retriever, "chosen by": way, "n": len(routed)}
        row["searches"] = mean([r["searches"] for r in routed])
        row["found"] = mean([len(r["found"] & r["supporting"]) / len(r["supporting"]) for r in routed])
        row |= {
            "first": mean(acted(way, first=True)),
            "acted": mean(every),
            "acted_interval": interval(every, seed=seed),
        }
        more = [a - b for a, b in zip(every, usual, strict=True)]
        row |= {"over_question": mean(more), "over_question_interval": interval(more, seed=seed)}
        chosen = [(p, p in r["supporting"]) for r in routed for p in r[way]]
        acting = [float(right) for p, right in chosen if p is not None]
        row |= {"acts": len(acting) / len(chosen), "right": mean(acting)}
        row["changed"] = mean([float(len({p for p in r[way] if p is not None}) > 1) for r in several])
        rows.append(row)
    return rows


def report_of(figures: Mapping[str, Any]) -> str:
    """Format the figures."""
    report = (
        f"# Whose adapter acts, hop by hop: queries of {figures['model']}, {figures['dtype']}, k = {figures['k']}, "
    )
    report += f"seed {figures['seed']}"
    for name, rows in figures["data"].items():
        shown = []
        for row in rows:
            (low, high), (less, more) = row["acted_interval"], row["over_question_interval"]
            spread = {"acted": f"{row['acted']:.2f} [{low:.2f}, {high:.2f}]"}
            spread["over_question"] = f"{row['over_question']:+.2f} [{less:+.2f}, {more:+.2f}]"
            shown.append({**row, **spread})
        columns = ["method", "retriever", "chosen by", "n", "searches", "found", "first", "acted", "over_question"]
        columns += ["acts", "right", "changed"]
        report += f"\n\n## {name}\n\n" + table(shown, columns)
    if not figures["complete"]:
        report += "\n\nStopped before the end; run the same command again to continue."
    return report


def _candidate(document: Document) -> Candidate:
    found = passage(document.page_content, document.metadata, document.id)
    assert found is not None
    return Candidate(found["id"], found["text"], found["title"], score=found["score"])


def _acts(words: str, candidates: Sequence[Candidate]) -> str | None:
    """Return the id of the passage that `route="lexical"` lets act for these words; None if it refuses all."""
    if not candidates:
        return None
    found = LexicalRouter().scores(words, candidates, [None] * len(candidates))
    best = max(range(len(candidates)), key=lambda i: found.scores[i] or 0.0)
    return None if found.refused else candidates[best].id


if __name__ == "__main__":
    main()
