"""Does it matter *when* one retrieves? Every preset, and a model that simply reads everything, on multi-hop questions.

Each method answers each question over the same corpus (all paragraphs of the data file) with the same prompt, retriever
(BM25, as the methods' papers have it) and number of exemplars; those that search by tags with their own prompt.
`long_context` gets every paragraph of the question itself, the supporting ones included, so its recall is 1 by
construction. `METHOD+parametric` and `METHOD+combined` put what they retrieve into the model's parameters (instead of,
or beside its text), `METHOD+translated` the adapters that a translator makes of it; adapters that are missing are
trained when they are needed, and kept.

Answers come from several sessions at once, which share the engine's forwards. Seconds and forward tokens come from a
second pass over the first questions, asked one at a time from the same state of the prefix cache, the methods taking
turns question by question, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langgraph.graph.state import CompiledStateGraph

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, corpus, load_questions, sample
from benchmarks.parametric_runs import open_store
from benchmarks.plots import method_bars
from benchmarks.runs import Job, Records, SamePrefix, key_of, load_chat, run, run_timed, timed
from benchmarks.scoring import interval, mean
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.presets.methods import PRESETS, get_preset
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.triggers import SelfAwareUncertainty
from langgraph_dynrag.triggers.rind import Bundle
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.translator.translator import Translator

_Key = TypeVar("_Key")
FEW_SAMPLES = SampleSpec(samples=5)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # SeaKR with 5 samples in place of 20, and the threshold that suits them (docs/results-triggers.md).
    "seakr_5": (
        "seakr",
        {
            "trigger": SelfAwareUncertainty(1.23, FEW_SAMPLES),
            "evidence_selector": LeastUncertain(FEW_SAMPLES),
            "final_answer": SurerAnswer(FEW_SAMPLES),
        },
    ),
}
METHODS = (*PRESETS, "dragin_reference", "etc_reference", *VARIANTS, "long_context")
INJECTED = ("parametric", "combined", "translated")
TOKENS = 100
EXEMPLARS = 6


class WholeContext(BaseRetriever):
    """Returns every paragraph of one question, whatever the query."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        return self.documents


def build(
    method: str,
    chat: LocalChatModel,
    retriever: BaseRetriever,
    question: Question,
    k: int,
    changes: dict[str, Any] | None = None,
    adapters: ParametricModel | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph of a method.

    Answer length, exemplars and k are the same for all; `changes` are an experiment's own.
    """
    method, _, inject = method.partition("+")
    common: dict[str, Any] = {
        "prompt": reasoned_prompt(EXEMPLARS),
        "budgets": Budgets(tokens=TOKENS),
        "lookahead": TOKENS,
        "k": k,
        "context_tokens": 1024,
    }
    if inject:
        common |= {
            "injection": "combined" if inject == "combined" else "parametric",
            "adapters": adapters,
            "missing": "translate" if inject == "translated" else "train",
        }
    if method == "long_context":
        retriever = WholeContext(documents=corpus([question]))
        common |= {"k": len(question.paragraphs), "context_tokens": 8192}
        return create_dynamic_rag(chat, retriever, preset="single", **common)
    if method == "flare":
        common["lookahead"] = 64
    name = method.removesuffix("_reference")
    bundle: Bundle = "paper" if name == method else "reference"
    if method in VARIANTS:
        name, own = VARIANTS[method]
        bundle, changes = "paper", {**own, **(changes or {})}
    if get_preset(name).prompt is not None:  # a model that is to write tags has to be told
        del common["prompt"]
    return create_dynamic_rag(chat, retriever, preset=name, bundle=bundle, **{**common, **(changes or {})})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("All presets on multi-hop questions: EM, F1, recall of evidence, cost.")
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of questions")
    options.add_argument("--questions", type=int, default=50, help="of each file")
    options.add_argument("--timed", type=int, default=10, help="questions of each file that are also timed")
    options.add_argument("--sessions", type=int, default=8, help="questions asked at once, except where timed")
    options.add_argument(
        "--methods", nargs="+", default=list(METHODS), help=f"{', '.join(METHODS)}, with +parametric, ..."
    )
    options.add_argument("--translator", help="a checkpoint, for METHOD+translated; or 'embedded'")
    options.add_argument("--k", type=int, default=3)
    args = options.parse_args(arguments)
    _check(options, args)
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    adapters = _adapters(chat, args.translator) if any("+" in m for m in args.methods) else None
    records = Records("questions")
    jobs: dict[str, dict[str, list[Job]]] = {}
    for path in args.data:
        everything = load_questions(path)
        retriever = BM25Retriever.from_documents(corpus(everything))
        chosen = sample(everything, args.questions, args.seed)
        jobs[path.stem] = {
            m: [job(chat, retriever, q, m, args.k, dtype=args.dtype, path=path, adapters=adapters) for q in chosen]
            for m in args.methods
        }
    turns = [by[m][i] for by in jobs.values() for i in range(args.questions) for m in by if i < len(by[m])]
    complete = run(turns, records, deadline, args.sessions)
    timed_turns = [by[m][i] for by in jobs.values() for i in range(args.timed) for m in by if i < len(by[m])]
    complete &= run_timed(timed_turns, records, deadline, SamePrefix(chat, reasoned_prompt(EXEMPLARS)))
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "k": args.k,
        "complete": complete,
        "machine": machine(),
        "data": {stem: summarise(by, records, args.seed) for stem, by in jobs.items()},
    }
    report = _report(figures)
    note(report)
    if args.out is not None:
        method_bars(figures["data"], args.out / "compare_methods.png")
    finish("compare_methods", figures, args.out, report)


def job(
    chat: LocalChatModel,
    retriever: BaseRetriever,
    question: Question,
    method: str,
    k: int,
    *,
    dtype: str,
    path: Path,
    changes: dict[str, Any] | None = None,
    adapters: ParametricModel | None = None,
) -> Job:
    """A question to be asked with a method."""
    about = description(chat, dtype, path, question, method, k, changes)
    if adapters is not None and "+" in method:
        about["adapters"] = adapters.translator_key if method.endswith("+translated") else adapters.recipe.key
    return Job(about, question, lambda: build(method, chat, retriever, question, k, changes, adapters))


def _check(options: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    injected = {m.partition("+")[2] for m in args.methods} - {""}
    if unknown := [m for m in args.methods if m.partition("+")[0] not in METHODS] or sorted(injected - set(INJECTED)):
        options.error(f"--methods {unknown[0]}: known are {', '.join(METHODS)}, and each with +{', +'.join(INJECTED)}")
    if ("translated" in injected) != bool(args.translator):
        options.error("--translator is for METHOD+translated, which needs it")
    if "translated" in injected and len(injected) > 1:
        options.error("+translated needs a run of its own: a trained adapter would take a translated one's place")


def _adapters(chat: LocalChatModel, translator: str | None) -> ParametricModel:
    if translator is None:
        return ParametricModel.of(chat.lm, open_store(chat.lm))
    made = Translator.load(translator, chat.lm)
    return ParametricModel.of(chat.lm, open_store(chat.lm, "translated"), recipe=made.config.recipe, translator=made)


def description(
    chat: LocalChatModel,
    dtype: str,
    path: Path,
    question: Question,
    method: str,
    k: int,
    changes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that the record of one question depends on."""
    about = {
        "fingerprint": chat.lm.fingerprint,
        "dtype": dtype,
        "file": path.name,
        "k": k,
        "question": question.id,
        "method": method,
        "tokens": TOKENS,
        "exemplars": EXEMPLARS,
        "preset": _preset_text(method),
    }
    return {**about, "changes": repr(changes)} if changes else about


def summarise(jobs: dict[str, list[Job]], records: Records, seed: int) -> list[dict[str, Any]]:
    """One row a method, over the questions that all methods have answered."""
    answered = common_records(jobs, records, lambda about: about)
    clocked = common_records(jobs, records, timed)
    base = mean([r["seconds"] for r in clocked.get("long_context", [])])
    single = [r["f1"] for r in answered.get("single", [])]
    summary = []
    for method, done in answered.items():
        searches = sum(r["retrievals"] for r in done)
        row: dict[str, Any] = {"method": method, "n": len(done)}
        for name in ("em", "f1", "recall"):
            values = [r[name] for r in done]
            row[name] = mean(values)
            row[f"{name}_interval"] = interval(values, seed=seed)
        seconds = mean([r["seconds"] for r in clocked[method]])
        if single:  # question by question: the questions' own difficulty, which all methods share, cancels
            gains = [r["f1"] - other for r, other in zip(done, single, strict=True)]
            row["f1_over_single"], row["f1_over_single_interval"] = mean(gains), interval(gains, seed=seed)
        row |= {
            "retrievals": mean([r["retrievals"] for r in done]),
            "nothing_new": sum(r["nothing_new"] for r in done) / searches if searches else None,
            "generated_tokens": mean([r["generated_tokens"] for r in done]),
            "timed": len(clocked[method]),
            "forward_tokens": mean([r["forward_tokens"] for r in clocked[method]]),
            "seconds": seconds,
            "seconds_over_long_context": seconds / base,
        }
        summary.append(row)
    return summary


def common_records(
    jobs: dict[_Key, list[Job]], records: Records, about: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[_Key, list[dict[str, Any]]]:
    """Each configuration's records, up to the first question that some configuration lacks."""
    found = {m: [records.get(key_of(about(j.about))) for j in listed] for m, listed in jobs.items()}
    n = min(next((i for i, r in enumerate(rs) if r is None), len(rs)) for rs in found.values())
    return {m: [r for r in rs[:n] if r is not None] for m, rs in found.items()}


def _preset_text(method: str) -> str:
    """What a method stands for, so that a change of a preset's values makes new records."""
    from langgraph_dynrag.presets.methods import get_preset

    method = method.partition("+")[0]
    if method == "long_context":
        return "single"
    if method in VARIANTS:
        base, changes = VARIANTS[method]
        return repr((get_preset(base), changes))
    name = method.removesuffix("_reference")
    return repr(get_preset(name, bundle="reference" if method != name else "paper"))


def _report(figures: dict[str, Any]) -> str:
    lines = [f"# Methods compared: {figures['model']}, {figures['dtype']}, k = {figures['k']}, seed {figures['seed']}"]
    for stem, rows in figures["data"].items():
        shown = []
        for row in rows:
            cells = dict(row)
            for name in ("em", "f1", "recall"):
                low, high = row[f"{name}_interval"]
                cells[name] = f"{row[name]:.3f} [{low:.2f}, {high:.2f}]"
            if "f1_over_single" in row:
                low, high = row["f1_over_single_interval"]
                cells["f1_over_single"] = f"{row['f1_over_single']:+.3f} [{low:+.2f}, {high:+.2f}]"
            shown.append(cells)
        columns = ["method", "n", "em", "f1", *(["f1_over_single"] if "f1_over_single" in rows[0] else []), "recall"]
        columns += ["retrievals", "nothing_new", "generated_tokens"]
        columns += ["timed", "forward_tokens", "seconds", "seconds_over_long_context"]
        lines += [f"\n## {stem}\n", table(shown, columns)]
    if not figures["complete"]:
        lines.append("\nStopped before the end; run the same command again to go on.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
