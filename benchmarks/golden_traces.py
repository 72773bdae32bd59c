"""Record the traces of all presets on a few questions before a change, and compare them after it.

In float32 the engine's arithmetic determines the output, so a change that claims to alter nothing must leave every text
and every decision unchanged on the same machine:

    python -m benchmarks.golden_traces record --data DATA --out before.jsonl      (before)
    python -m benchmarks.golden_traces compare --data DATA --out before.jsonl     (after)

Values that differ between runs (seconds, run ids, work counted in tokens and forward passes) are left out. An
interrupted recording resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import note
from benchmarks.datasets import Question, corpus, load_questions, sample
from langgraph_dynrag import PRESETS, Budgets, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.presets.methods import get_preset
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from rag_backbone.errors import DynPragError

TOKENS = 48
SAMPLES = 3
"""Number of samples for SeaKR's trigger, instead of twenty."""
_VARIES = frozenset(
    {
        "seconds",
        "run_id",
        "id",
        "prompt_tokens",
        "forward_tokens",
        "cached_tokens",
        "generated_tokens",
        "cost",
        "spent",
        "samples_tokens",
        "time",
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Record, or compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("action", choices=("record", "compare"))
    options.add_argument("--data", type=Path, required=True, help="a file of questions")
    options.add_argument("--out", type=Path, required=True, help="a JSON-lines file, one line per preset and question")
    options.add_argument("--questions", type=int, default=10)
    options.add_argument("--first", type=int, help="run only the first N; the index still holds the passages of all")
    options.add_argument("--presets", nargs="*", default=list(PRESETS))
    args = options.parse_args(arguments)
    questions = sample(load_questions(args.data), args.questions, 0)
    kept = _read(args.out)
    chat = LocalChatModel(dtype="float32", device="cpu")
    differ = 0
    for preset in args.presets:
        graph = _graph(chat, preset, questions)
        for question in questions[: args.first]:
            key = f"{preset} {question.id}"
            if args.action == "record" and key in kept:
                continue
            found = json.loads(json.dumps(_run(graph, question)))
            if args.action == "record":
                with args.out.open("a") as file:
                    file.write(json.dumps({"key": key, **found}) + "\n")
            elif (before := kept.get(key)) is None:
                note(f"{key}: not recorded")
            elif not _same(before, found):
                differ += 1
                note(f"{key}: {_difference(before, found)}")
        note(f"{preset}: done")
    if differ:
        raise SystemExit(f"{differ} traces differ")


def _graph(chat: LocalChatModel, preset: str, questions: Sequence[Question]) -> Any:
    retriever = None if preset == "no_retrieval" else BM25Retriever.from_documents(corpus(questions), k=3)
    budgets = get_preset(preset).settings.get("budgets") or Budgets()
    changes: dict[str, Any] = {"budgets": replace(budgets, tokens=TOKENS), "seed": 0}
    if preset == "seakr":
        trigger = get_preset(preset).settings["trigger"]
        changes["trigger"] = replace(trigger, sampling=replace(trigger.sampling, samples=SAMPLES, max_tokens=24))
    return create_dynamic_rag(chat, retriever, preset=preset, **changes)


def _run(graph: Any, question: Question) -> dict[str, Any]:
    try:
        result = graph.invoke({"question": question.text})
    except DynPragError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"answer": result["answer"], "trace": [_steady(event) for event in result["trace"]]}


def _steady(value: Any) -> Any:
    """Remove values that differ between runs."""
    if isinstance(value, dict):
        return {name: _steady(part) for name, part in value.items() if name not in _VARIES}
    if isinstance(value, list | tuple):
        return [_steady(part) for part in value]
    return value


def _same(before: Any, after: Any) -> bool:
    """Return whether two values are equal; floats may differ slightly, as the order of summation may change."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(part, after[name]) for name, part in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-3)
    return bool(before == after)


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    said, says = (record.get("answer", record.get("error")) for record in (before, after))
    if said != says or "trace" not in before:
        return f"{said!r} became {says!r}"
    for old, new in zip(before["trace"], after["trace"], strict=False):
        if not _same(old, new):
            names = [name for name in {*old, *new} if not _same(old.get(name), new.get(name))]
            return f"{old.get('type')}: {', '.join(sorted(names))}"
    return f"{len(before['trace'])} events became {len(after['trace'])}"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    records = (json.loads(line) for line in path.read_text().split("\n") if line.strip())
    return {record.pop("key"): record for record in records}


if __name__ == "__main__":
    main()
