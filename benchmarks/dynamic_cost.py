"""Cost of DRAGIN in the graph compared with the published procedure.

Both sides use the same model, questions, retriever, prompt and definition of the signals, and alternate question by
question. The naive side drafts to the full length, computes attention in a second forward pass and a third one for the
query, and starts from scratch after each retrieval (see `naive_dragin`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import corpus, load_questions, sample
from benchmarks.naive_dragin import NaiveDragin
from benchmarks.runs import Records, key_of, load_chat
from benchmarks.scoring import mean
from langgraph_dynrag.assembly import make_settings
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.presets.methods import get_preset
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.trace.trace import Trace
from rag_backbone.metrics import f1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("The dragin preset compared with a plain implementation of the published procedure.")
    options.add_argument("--data", type=Path, required=True, help="a file of questions")
    options.add_argument("--questions", type=int, default=16)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    everything = load_questions(args.data)
    preset = get_preset("dragin")
    retriever = BM25Retriever.from_documents(corpus(everything), k=3)
    graph = create_dynamic_rag(chat, retriever, preset="dragin")
    settings = make_settings(chat, retriever, preset="dragin")
    naive = NaiveDragin(chat, retriever, settings)
    records = Records("dynamic_cost")
    rows: list[dict[str, Any]] = []
    complete = True
    for i, question in enumerate(sample(everything, args.questions, args.seed)):
        about = {
            "fingerprint": chat.lm.fingerprint,
            "dtype": args.dtype,
            "file": args.data.name,
            "question": question.id,
            "preset": repr(preset),
        }
        record = records.get(key_of(about))
        if record is None:
            if deadline.over:
                complete = False
                break
            record = _measure(graph, naive, question.text, question.answers)
            records.put(key_of(about), about, record)
        rows.append(record)
        note(f"{i + 1}: {record['seconds']:.1f} s against {record['naive_seconds']:.1f} s; {record['query']!r}")
    triggered = [r for r in rows if r["query"] or r["naive_query"]]
    same = [r["query"] == r["naive_query"] and r["sentence"] == r["naive_sentence"] for r in triggered]
    figures = {
        "time_ratio": sum(r["naive_seconds"] for r in rows) / max(sum(r["seconds"] for r in rows), 1e-9),
        "forward_token_ratio": sum(r["naive_forward_tokens"] for r in rows)
        / max(sum(r["forward_tokens"] for r in rows), 1),
        "same_decisions": mean([float(s) for s in same]),
        "questions": len(rows),
        "questions_with_trigger": len(triggered),
        "f1": mean([r["f1"] for r in rows]),
        "naive_f1": mean([r["naive_f1"] for r in rows]),
        "model": chat.lm.name,
        "dtype": args.dtype,
        "data": args.data.stem,
        "seed": args.seed,
        "complete": complete,
        "machine": machine(),
    }
    report = _report(figures, rows)
    note(report)
    finish("dynamic_cost", figures, args.out, report)


def _measure(graph: Any, naive: NaiveDragin, question: str, answers: Sequence[str]) -> dict[str, Any]:
    started = time.perf_counter()
    result = graph.invoke({"question": question})
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    other = naive.ask(question)
    naive_seconds = time.perf_counter() - started
    trace = Trace.from_state(result)
    first = next((d for d in trace.drafts if d.verdict is not None and d.verdict["retrieve"]), None)
    sentence = "" if first is None or first.verdict is None else first.text
    if first is not None and first.verdict is not None:
        sentence = "".join(t.text for t in first.tokens[: first.verdict["tokens"]])
    return {
        "seconds": seconds,
        "naive_seconds": naive_seconds,
        "forward_tokens": trace.counts["forward_tokens"],
        "naive_forward_tokens": other.forward_tokens,
        "sentence": sentence,
        "naive_sentence": other.trigger_sentences[0] if other.trigger_sentences else "",
        "query": trace.retrievals[0]["query"] if trace.retrievals else "",
        "naive_query": other.queries[0] if other.queries else "",
        "f1": f1(result["short_answer"], answers),
        "naive_f1": f1(other.short_answer, answers),
        "retrievals": len(trace.retrievals),
        "naive_retrievals": len(other.queries),
    }


def _report(figures: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    columns = ["seconds", "naive_seconds", "forward_tokens", "naive_forward_tokens", "retrievals", "naive_retrievals"]
    means = [{"mean of": c, "value": mean([r[c] for r in rows])} for c in columns]
    text = f"# Cost of dynamic retrieval: {figures['model']}, {figures['dtype']}, {figures['data']}\n\n"
    text += table(means, ["mean of", "value"])
    text += (
        f"\n\ntime_ratio {figures['time_ratio']:.2f}, forward_token_ratio {figures['forward_token_ratio']:.2f}, "
        f"same_decisions {figures['same_decisions']:.3f} over {figures['questions_with_trigger']} questions with a "
        f"trigger (of {figures['questions']})"
    )
    return text


if __name__ == "__main__":
    main()
