"""What calibrated triggers save: searches against F1, beside searching once, never, and in several steps.

FLARE's method runs, without its search before the answer, with the thresholds that `benchmarks.learned_trigger` chose
on training files for a number of searches per question: with its own trigger, the least token probability, with the
least one of new names, and with the learned trigger; so do DRAGIN and ETC with their own triggers. Without such a file,
the thresholds of the first two come from drafts of the questions in `--rate-from`, for which no labels are needed; with
`--seakr`, also that of SeaKR's uncertainty of five samples.
Beside them stand the presets that search a fixed number of times. Everything else is the same
(`benchmarks.compare_methods`). Differences to one search are paired by question; intervals are by bootstrap over
questions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.compare_methods import FEW_SAMPLES, common_records, job
from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, corpus, load_questions, sample
from benchmarks.draft_points import PointWriter
from benchmarks.runs import Job, Records, key_of, load_chat, run
from benchmarks.scoring import interval, mean
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import DraftView
from langgraph_dynrag.presets.methods import PRESETS
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers import ETC, RIND, LearnedTrigger, SelfAwareUncertainty, TokenProbability
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.features import features_of
from langgraph_dynrag.triggers.learned_model import LearnedModel
from rag_backbone.errors import ConfigurationError

LEAST = {"least_probability": "least_logprob", "least_new_name_probability": "least_new_name_logprob"}
"""Name of a threshold to the feature that it bounds, as a logarithm."""
LOST = 0.02
"""How much less F1 than with one search still counts as as good, as a point value."""
LOST_AT_WORST = 0.06
"""The same as the lower bound of the difference's interval."""
SEARCHES = 0.6
"""Searches per question that a calibrated method may make to count as cheaper."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Searches per question against F1, at calibrated thresholds.", dtype="bfloat16")
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of questions to report on")
    options.add_argument("--triggers", type=Path, help="learned_trigger.json of the same model")
    options.add_argument("--rate-from", type=Path, nargs="+", help="instead, training files to choose thresholds from")
    options.add_argument("--seakr", action="store_true", help="also SeaKR with five samples, with --rate-from")
    options.add_argument("--rate-questions", type=int, default=30, help="questions from each of these files")
    options.add_argument("--questions", type=int, default=100, help="questions from each file")
    options.add_argument("--sessions", type=int, default=8, help="concurrent questions")
    options.add_argument("--only", nargs="+", help="of the calibrated methods, those whose names begin with these")
    options.add_argument("--rates", type=float, nargs="+", default=[0.3, 0.6], help="searches per question, as there")
    options.add_argument("--methods", nargs="*", default=["ircot", "iter_retgen"], help="presets beside them")
    options.add_argument("--k", type=int, default=3)
    args = options.parse_args(arguments)
    if unknown := [m for m in args.methods if m not in (*PRESETS, "long_context")]:
        options.error(f"--methods {unknown[0]}: known are {', '.join(PRESETS)}")
    if (args.triggers is None) is (args.rate_from is None) or (args.seakr and args.rate_from is None):
        options.error("either --triggers or --rate-from is needed, and --rate-from for --seakr")
    known = [] if args.triggers is None else thresholds_in(args.triggers, args.model)
    if args.triggers is not None:
        methods_of(known, args.rates, args.only)  # refuses what is missing before the model is loaded
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    if args.rate_from:
        known = thresholds_by_rate(chat, args)
    calibrated = methods_of(known, args.rates, args.only)
    records = Records("questions")
    methods: dict[str, tuple[str, dict[str, Any] | None]] = {
        **{name: (name, None) for name in ("no_retrieval", "single", *args.methods)},
        **calibrated,
    }
    jobs: dict[str, dict[str, list[Job]]] = {}
    for path in args.data:
        everything = load_questions(path)
        retriever = BM25Retriever.from_documents(corpus(everything))
        chosen = sample(everything, args.questions, args.seed)
        jobs[path.stem] = {
            name: [job(chat, retriever, q, m, args.k, dtype=args.dtype, path=path, changes=changes) for q in chosen]
            for name, (m, changes) in methods.items()
        }
    turns = [by[m][i] for i in range(args.questions) for by in jobs.values() for m in by if i < len(by[m])]
    complete = run(turns, records, deadline, args.sessions)
    data = {stem: rows_of(common_records(by, records, lambda about: about), args.seed) for stem, by in jobs.items()}
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "k": args.k,
        "complete": complete,
        "machine": machine(),
        "data": data,
        "as_good_and_cheaper": {stem: as_good_and_cheaper(rows) for stem, rows in data.items()},
    }
    report = report_of(figures)
    note(report)
    finish("calibrated", figures, args.out, report)


def thresholds_in(path: Path, model: str) -> list[dict[str, Any]]:
    """Return the thresholds of each rate in a file of `benchmarks.learned_trigger`, with the learned trigger itself.

    Raises:
        ConfigurationError: If the file is of another model, to which thresholds do not carry over.
    """
    found = json.loads(path.read_text("utf-8"))
    if Path(model).name != found["model"]:
        raise ConfigurationError(f"{path} is of the model {found['model']}; run benchmarks.learned_trigger on {model}")
    learned = LearnedModel.of(found["model_of_trigger"])
    return [{**of, "model": learned} for of in found["thresholds"]]


def thresholds_by_rate(chat: LocalChatModel, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Draft answers without searching, and return the thresholds at which each rate of sentences would search."""
    writer, records = PointWriter(chat, samples=0, signals_only=True), Records("rate_drafts")
    asked = [q for p in args.rate_from for q in sample(load_questions(p), args.rate_questions, args.seed)]

    def drafted(question: Question) -> list[dict[str, float]]:
        about = {"question": question.text, "dtype": args.dtype, **writer.description}
        about |= {"uncertainty": repr(FEW_SAMPLES)} if args.seakr else {}
        if (known := records.get(key := key_of(about))) is None:
            views = writer.unaided(question)
            known = {"sentences": [_signals(view, seakr=args.seakr) for view in views]}
            records.put(key, about, known)
        found: list[dict[str, float]] = known["sentences"]
        return found

    with ThreadPoolExecutor(args.sessions) as pool:
        sentences = [sentence for of in pool.map(drafted, asked) for sentence in of]
    found = []
    for rate in args.rates:
        at = min(len(sentences), round(rate * len(asked))) - 1
        found.append({"rate": rate, **{name: math.exp(sorted(s[name] for s in sentences)[at]) for name in LEAST}})
        if args.seakr:  # it searches above its threshold, not at it
            scores = [*sorted((s["uncertainty"] for s in sentences), reverse=True), -sys.float_info.max]
            found[-1]["uncertainty"] = scores[at + 1]
    note(f"thresholds from {len(asked)} questions with {len(sentences)} sentences: {found}")
    return found


def methods_of(
    known: Sequence[Mapping[str, Any]], rates: Sequence[float], only: Sequence[str] | None = None
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the calibrated methods by name, each as a preset and the changes in it.

    Args:
        known: Thresholds of each rate.
        rates: The rates to use.
        only: Beginnings of the names of the methods to return; None: all.

    Raises:
        ConfigurationError: If there are no thresholds for a rate, or no method has such a name.
    """
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    by_rate = {of["rate"]: of for of in known}
    if missing := sorted(set(rates) - set(by_rate)):
        raise ConfigurationError(
            f"there are no thresholds for the rate {missing[0]}; there are some for {sorted(by_rate)}"
        )
    for of in (by_rate[rate] for rate in rates):
        searches = f"{of['rate']:g} searches"
        triggers: dict[str, Trigger] = {
            "least": TokenProbability(of["least_probability"]),
            "new names": TokenProbability(of["least_new_name_probability"], tokens="new_names"),
        }
        if "model" in of:
            triggers["learned"] = LearnedTrigger(of["model"], of["learned"])
            made[f"dragin, {searches}"] = ("dragin", {"trigger": RIND(of["rind"])})
            made[f"etc, {searches}"] = ("etc", {"trigger": ETC(of["etc"])})
        if "uncertainty" in of:
            uncertain = SelfAwareUncertainty(of["uncertainty"], FEW_SAMPLES)
            made[f"seakr of 5, {searches}"] = ("seakr_5", {"trigger": uncertain})
        for name, trigger in triggers.items():
            made[f"{name}, {searches}"] = ("flare", {"trigger": trigger, "initial_retrieval": False})
    for start in only or ():
        if not any(name.startswith(start) for name in made):
            raise ConfigurationError(f"no calibrated method's name begins with {start!r}; there are {', '.join(made)}")
    return {name: of for name, of in made.items() if only is None or name.startswith(tuple(only))}


def _signals(view: DraftView, *, seakr: bool) -> dict[str, Any]:
    """Return a sentence's least log-probabilities, and with `seakr` its uncertainty."""
    found: dict[str, Any] = dict(zip(LEAST, features_of(view, tuple(LEAST.values())), strict=True))
    if seakr:
        score = SelfAwareUncertainty(0.0, FEW_SAMPLES).judge(view).score
        found["uncertainty"] = sys.float_info.max if score is None else score  # every sample was empty
    return found


def rows_of(found: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> list[dict[str, Any]]:
    """Return one row per method, over the questions that all methods have answered."""
    single = [r["f1"] for r in found["single"]]
    rows = []
    for method, done in found.items():
        row: dict[str, Any] = {"method": method, "n": len(done)}
        for name in ("f1", "em", "recall", "retrievals", "generated_tokens"):
            values = [float(r[name]) for r in done]
            row[name], row[f"{name}_interval"] = mean(values), interval(values, seed=seed)
        lost = [r["f1"] - other for r, other in zip(done, single, strict=True)]
        row["f1_over_single"], row["f1_over_single_interval"] = mean(lost), interval(lost, seed=seed)
        rows.append(row)
    return rows


def as_good_and_cheaper(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the calibrated methods with few searches that lose no more F1 to one search than is allowed."""
    return [
        row["method"]
        for row in rows
        if row["method"].endswith(" searches")
        and row["retrievals"] <= SEARCHES
        and row["f1_over_single"] >= -LOST
        and row["f1_over_single_interval"][0] > -LOST_AT_WORST
    ]


def report_of(figures: Mapping[str, Any]) -> str:
    """Format the figures."""
    report = f"# Calibrated methods: {figures['model']}, {figures['dtype']}, k = {figures['k']}, seed {figures['seed']}"
    for stem, rows in figures["data"].items():
        shown = [{**row, **{name: _spread(row, name) for name in ("f1", "f1_over_single")}} for row in rows]
        columns = ["method", "n", "retrievals", "f1", "f1_over_single", "em", "recall", "generated_tokens"]
        report += f"\n\n## {stem}\n\n" + table(shown, columns)
        good = figures["as_good_and_cheaper"][stem]
        report += f"\n\nAs good as one search (at most {LOST:g} F1 less, at worst {LOST_AT_WORST:g}) with at most "
        report += f"{SEARCHES:g} searches a question: {', '.join(good) or 'none'}."
    if not figures["complete"]:
        report += "\n\nStopped before the end; run the same command again to continue."
    return report


def _spread(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    sign = "+" if name.endswith("single") else ""
    return f"{row[name]:{sign}.3f} [{low:{sign}.2f}, {high:{sign}.2f}]"


if __name__ == "__main__":
    main()
