"""Throughput of concurrent sessions that share the engine's forward passes.

The same questions are answered by the same graph (`graph.abatch`) with 1, 2, 4 and 8 concurrent sessions, in
alternation. Every pass starts from the same prefix cache: with the prompts of all questions (`known`: they have been
asked before), or with the fixed part of the prompt only (`new`). In float32 each answer must equal that of a single
session.

The fastest pass for each number of sessions counts, because other load only slows passes down: on a shared machine by
up to a third within minutes. All passes are reported.

Sessions share decoding, and the prefill of prompts that wait at the same time. At least on a CPU, sharing makes prefill
little cheaper, so a method gains less the more it has to read; hence several methods and both caches.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import corpus, load_questions, sample
from benchmarks.runs import SamePrefix, load_chat
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever

EXEMPLARS = 6
_PREFIX_BYTES = 8 << 30
"""Size of the prefix cache: enough for the prompts of all questions."""


class Pass:
    """One pass over all questions."""

    def __init__(self, seconds: float, answers: list[str], tokens: int) -> None:
        self.seconds = seconds
        self.answers = answers
        self.tokens = tokens

    @classmethod
    async def of(cls, graph: Any, inputs: list[dict[str, str]], sessions: int) -> Pass:
        """Ask the questions, `sessions` at a time."""
        started = time.perf_counter()
        found = await graph.abatch(inputs, {"max_concurrency": sessions})
        seconds = time.perf_counter() - started
        drafts = [e for out in found for e in out["trace"] if e["type"] == "draft"]
        tokens = sum(len(e["pieces"]) - e["carried"] for e in drafts)
        return cls(seconds, [out["answer"] for out in found], tokens)


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and report."""
    options = parser("Questions a second by the number of concurrent sessions.")
    options.add_argument("--data", type=Path, required=True, help="a file of questions")
    options.add_argument("--questions", type=int, default=16)
    options.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--tokens", type=int, default=64, help="maximum tokens of an answer")
    options.add_argument(
        "--presets",
        nargs="+",
        default=["flare", "no_retrieval", "single"],
        help="the figures of the first one are named without it",
    )
    options.add_argument(
        "--caches",
        nargs="+",
        choices=["known", "new"],
        default=["new", "known"],
        help="the figures of the first one are named without it",
    )
    options.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    args = options.parse_args(arguments)
    if 1 not in args.sessions:
        options.error("--sessions must include 1, which the others are compared with")
    deadline = Deadline(args.max_minutes)
    rows: list[dict[str, Any]] = []
    complete = True
    for dtype in args.dtypes:
        chat = load_chat(args.model, dtype)
        chat.lm.engine.prefixes.max_bytes = _PREFIX_BYTES
        for preset, caches in itertools.product(args.presets, args.caches):
            passes, done = measured(args, chat, preset, caches, deadline)
            complete &= done
            rows += [{"preset": preset, "prompts": caches, "dtype": dtype, **row} for row in _rows(passes)]
    _report(args, rows, complete=complete)


def measured(
    args: Any, chat: LocalChatModel, preset: str, caches: str, deadline: Deadline
) -> tuple[dict[int, list[Pass]], bool]:
    """Return the passes over all questions, by the number of sessions, and whether there was time for all of them."""
    everything = load_questions(args.data)
    prompt = reasoned_prompt(EXEMPLARS)
    graph = create_dynamic_rag(
        chat,
        BM25Retriever.from_documents(corpus(everything)),
        preset=preset,
        prompt=prompt,
        budgets=Budgets(tokens=args.tokens),
        lookahead=64,
    )
    inputs = [{"question": q.text} for q in sample(everything, args.questions, args.seed)]
    same = SamePrefix(chat, prompt)
    graph.invoke(inputs[0])  # warm-up: loads what is loaded lazily
    passes: dict[int, list[Pass]] = {n: [] for n in args.sessions}
    same.restore()
    if caches == "known":
        asyncio.run(Pass.of(graph, inputs, 1))
        same.keep()
    for turn in range(args.repeats):
        for n in args.sessions if turn % 2 == 0 else reversed(args.sessions):
            if deadline.over:
                return passes, False
            same.restore()
            passes[n].append(asyncio.run(Pass.of(graph, inputs, n)))
            rate = len(inputs) / passes[n][-1].seconds
            note(f"{chat.lm.model.dtype}, {preset}, {caches} prompts, {n} sessions: {rate:.3f} questions a second")
    return passes, True


def _rows(passes: dict[int, list[Pass]]) -> list[dict[str, Any]]:
    if not all(passes.values()):
        return []
    alone = passes[1][0]
    fastest = {n: min(found, key=lambda p: p.seconds) for n, found in passes.items()}
    return [
        {
            "sessions": n,
            "questions/s": len(alone.answers) / fastest[n].seconds,
            "speedup": fastest[1].seconds / fastest[n].seconds,
            "tokens/s": fastest[n].tokens / fastest[n].seconds,
            "identical": sum(a == b for p in found for a, b in zip(p.answers, alone.answers, strict=True))
            / (len(found) * len(alone.answers)),
            "passes": len(found),
            "seconds": " ".join(f"{p.seconds:.0f}" for p in found),
        }
        for n, found in passes.items()
    ]


def _report(args: Any, rows: list[dict[str, Any]], *, complete: bool) -> None:
    report = f"# Sessions that share forward passes: {args.model}\n\n"
    report += f"{args.questions} questions of {args.data.name}, seed {args.seed}, answers of at most {args.tokens} "
    report += f"tokens; the fastest of {args.repeats} passes.\n\n"
    if rows:
        report += table(rows, list(rows[0]))
    note(report)
    figures: dict[str, Any] = {"complete": complete}
    most = max(args.sessions)
    for row in rows:
        if row["sessions"] == most:
            first = (row["preset"], row["prompts"]) == (args.presets[0], args.caches[0])
            suffix = row["dtype"] if first else f"{row['dtype']}_{row['preset']}_{row['prompts']}"
            figures[f"speedup_at_{most}_{suffix}"] = row["speedup"]
            figures[f"identical_{suffix}"] = row["identical"]
    figures |= {
        "rows": rows,
        "presets": args.presets,
        "caches": args.caches,
        "data": args.data.name,
        "questions": args.questions,
        "seed": args.seed,
        "model": args.model,
        "machine": machine(),
    }
    finish("concurrency", figures, args.out, report)


if __name__ == "__main__":
    main()
