"""What a learned trigger gives up on: how many wrong answers, and how many right ones.

`calibrate(..., trigger="learned", given_up=...)` bounds the share of the right *sentences* that are given up, on
questions held out. Here, its trigger is trained in the same way, and other files say how many *answers* it would give
up, right and wrong ones. FLARE's method searches before the answer, and passages stay, so that every sentence is judged
with passages in the prompt. An answer is given up as soon as one of its sentences has the probability; until then, a
run that gives up is the run that does not, so one run per question tells about every threshold.

Intervals are by bootstrap over questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.compare_methods import EXEMPLARS, TOKENS
from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, corpus, load_questions, sample
from benchmarks.runs import Records, key_of, load_chat
from benchmarks.scoring import interval, mean, roc_area
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.calibration.bounds import abstain_threshold
from langgraph_dynrag.calibration.folds import TooFewPointsError
from langgraph_dynrag.calibration.learning import HELD_OUT, one_per_question, split
from langgraph_dynrag.calibration.points import PointRecorder, label_points
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.training import LabelledPoint, Trained, train
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.graph import create_dynamic_rag, create_nodes
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.features import FEATURES
from rag_backbone.metrics import exact_match, f1

RIGHT = 0.5
"""F1 from which on an answer counts as right."""
SHARES = (0.05, 0.1, 0.2, 0.3)
"""Shares of the right sentences that may be given up."""
CONFIDENCE = 0.9
RATE = 0.3
"""Share of the sentences at which the trigger searches."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Label the training questions, train, answer the development questions, and report."""
    options = parser("What a learned trigger gives up on.", dtype="bfloat16")
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of questions to report on")
    options.add_argument("--train", type=Path, nargs="+", required=True, help="files of questions to train on")
    options.add_argument("--questions", type=int, default=60, help="questions from each file of --data")
    options.add_argument("--train-questions", type=int, default=60, help="questions from each file of --train")
    options.add_argument("--sessions", type=int, default=16, help="questions in progress at a time")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    about = {"fingerprint": chat.lm.fingerprint, "dtype": args.dtype, "tokens": TOKENS, "exemplars": EXEMPLARS}
    points, complete = _labelled(chat, args.train, args.train_questions, about, args, deadline)
    known, held_out = split(points, HELD_OUT, args.seed)
    trained = train(known, tuple(FEATURES), kind="logistic", seed=args.seed)
    fires = sorted(trained.probabilities, reverse=True)[round(RATE * len(known)) - 1]
    thresholds = thresholds_of(trained, held_out, fires, args.seed)
    trigger = LearnedTrigger(trained.model, fires)
    found: dict[str, list[dict[str, Any]]] = {}
    for path in args.data:
        found[path.stem], done = _answered(chat, path, trigger, about, args, deadline)
        complete &= done
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "complete": complete,
        "machine": machine(),
        "training": {
            "questions": len({p.question for p in points}),
            "points": len(points),
            "needed": sum(p.needed for p in points),
            "right_with_passages": sum(p.right_with_passages for p in points),
            "auc": trained.auroc,
            "auc_interval": trained.auroc_interval,
        },
        "data": {name: told_of(of, thresholds, args.seed) for name, of in found.items() if of},
    }
    report = report_of(figures)
    note(report)
    finish("abstaining", figures, args.out, report)


def graph_options(trigger: Trigger) -> dict[str, Any]:
    """Return the options of the graph with a trigger."""
    common: dict[str, Any] = {"prompt": reasoned_prompt(EXEMPLARS), "budgets": Budgets(tokens=TOKENS), "k": 3}
    common |= {"lookahead": 64, "context_tokens": 1024, "initial_retrieval": True, "evidence_life": "accumulated"}
    return {"preset": "flare", "trigger": trigger, **common}


def label(chat: LocalChatModel, retriever: BM25Retriever, question: Question) -> list[dict[str, Any]]:
    """Answer a training question, and return its labelled sentences."""
    recorder = PointRecorder(tuple(FEATURES))
    made = graph_options(recorder)
    graph = create_dynamic_rag(chat, retriever, **made)
    asked = CalibrationQuestion(question.text, question.answers)
    return [
        asdict(p) for p in label_points(graph, create_nodes(chat, retriever, **made).begin.settings, recorder, [asked])
    ]


def answer(chat: LocalChatModel, retriever: BM25Retriever, trigger: Trigger, question: Question) -> dict[str, Any]:
    """Answer a question, and return its scores and the probability of each sentence that was judged with passages."""
    out = create_dynamic_rag(chat, retriever, **graph_options(trigger)).invoke({"question": question.text})
    judged = [e["score"] for e in out["trace"] if e["type"] == "verdict" and e.get("score") is not None]
    short = out["short_answer"]
    scores = {"f1": f1(short, question.answers), "em": exact_match(short, question.answers)}
    return {"short_answer": short, **scores, "probabilities": judged}


def thresholds_of(
    trained: Trained, held_out: Sequence[LabelledPoint], fires: float, seed: int
) -> dict[float, float | None]:
    """Return for each share the lowest probability at which an answer may be given up; None: at none.

    As `calibrate` chooses it: from one right sentence of each held-out question, and not below where it searches.
    """
    p = [trained.model.probability(h.inputs(trained.model)) for h in held_out]
    right = one_per_question(held_out, p, [h.right_with_passages for h in held_out], seed)
    found: dict[float, float | None] = {}
    for share in SHARES:
        try:
            lowest = max(abstain_threshold(right, share, CONFIDENCE), fires)
        except TooFewPointsError as error:
            note(error)
            continue
        found[share] = lowest if lowest <= 1 else None
    return found


def told_of(
    answers: Sequence[Mapping[str, Any]], thresholds: Mapping[float, float | None], seed: int
) -> dict[str, Any]:
    """Return what each threshold gives up of a file's answers, and how the probabilities rank them."""
    highest = [max(a["probabilities"], default=0.0) for a in answers]
    right = [a["f1"] >= RIGHT for a in answers]
    rows = []
    for share, lowest in thresholds.items():
        gone = [lowest is not None and p >= lowest for p in highest]
        row: dict[str, Any] = {"allowed": share, "threshold": lowest, "given_up": mean([float(g) for g in gone])}
        for name, which in (("right", True), ("wrong", False)):
            of = [float(g) for g, r in zip(gone, right, strict=True) if r is which]
            row[f"of_{name}"], row[f"of_{name}_interval"] = _measured(of, seed)
        kept = [a["f1"] for a, g in zip(answers, gone, strict=True) if not g]
        row["f1_of_the_rest"], row["f1_of_the_rest_interval"] = _measured(kept, seed)
        rows.append(row)
    about: dict[str, Any] = {
        "n": len(answers),
        "right": sum(right),
        "f1": mean([a["f1"] for a in answers]),
        "rows": rows,
    }
    if len(set(right)) == 2:
        area, low, high = roc_area(highest, [not r for r in right], groups=list(range(len(right))), seed=seed)
        about |= {"auc": area, "auc_interval": (low, high)}
    return about


def report_of(figures: Mapping[str, Any]) -> str:
    """Format the figures."""
    made = figures["training"]
    low, high = made["auc_interval"]
    report = f"# What a learned trigger gives up on: {figures['model']}, {figures['dtype']}, seed {figures['seed']}\n\n"
    report += (
        f"{made['points']} labelled sentences of {made['questions']} questions, a third of which is held out for the "
    )
    report += (
        f"thresholds; {made['needed']} sentences needed a retrieval, and {made['right_with_passages']} were right with "
    )
    report += (
        f"passages in the prompt. Area in cross-validation on the others: {made['auc']:.2f} [{low:.2f}, {high:.2f}]."
    )
    for name, told in figures["data"].items():
        report += f"\n\n## {name}\n\n{told['n']} answers, {told['right']} of them right (F1 of at least {RIGHT:g}), F1 "
        report += f"{told['f1']:.3f}."
        if "auc" in told:
            low, high = told["auc_interval"]
            report += f" Area of the highest probability for wrong answers: {told['auc']:.2f} [{low:.2f}, {high:.2f}]."
        names = ("of_right", "of_wrong", "f1_of_the_rest")
        shown = [{**row, **{name: _spread(row, name) for name in names}} for row in told["rows"]]
        report += "\n\n" + table(shown, ["allowed", "threshold", "given_up", *names])
    if not figures["complete"]:
        report += "\n\nStopped before the end; run the same command again to continue."
    return report


def _labelled(
    chat: LocalChatModel, files: Sequence[Path], count: int, about: Mapping[str, Any], args: Any, deadline: Deadline
) -> tuple[list[LabelledPoint], bool]:
    """Return the labelled sentences of the training questions; each question has a number of its own."""
    records, points, number, complete = Records("abstaining_points"), list[LabelledPoint](), 0, True
    for path in files:
        everything = load_questions(path)
        retriever = BM25Retriever.from_documents(corpus(everything))
        chosen = sample(everything, count, args.seed)

        def one(
            question: Question, name: str = path.name, index: BM25Retriever = retriever
        ) -> list[LabelledPoint] | None:
            key = key_of(own := {**about, "file": name, "question": question.id, "features": list(FEATURES)})
            if (found := records.get(key)) is None:
                if deadline.over:
                    return None
                records.put(key, own, found := {"points": label(chat, index, question)})
                note(f"{name}: {question.id} labelled")
            return [LabelledPoint(**p) for p in found["points"]]

        with ThreadPoolExecutor(args.sessions) as pool:
            listed = list(pool.map(one, chosen))
        complete &= None not in listed
        for of in listed:
            points += [replace(p, question=number) for p in of or ()]
            number += 1
    return points, complete


def _answered(
    chat: LocalChatModel, path: Path, trigger: LearnedTrigger, about: Mapping[str, Any], args: Any, deadline: Deadline
) -> tuple[list[dict[str, Any]], bool]:
    """Return the answers to a file's questions, up to the first that the deadline left out."""
    records, everything = Records("abstaining"), load_questions(path)
    retriever = BM25Retriever.from_documents(corpus(everything))

    def one(question: Question) -> dict[str, Any] | None:
        key = key_of(own := {**about, "file": path.name, "question": question.id, "trigger": asdict(trigger)})
        if (found := records.get(key)) is None and not deadline.over:
            records.put(key, own, found := answer(chat, retriever, trigger, question))
            note(f"{path.name}: {question.id} answered")
        return found

    with ThreadPoolExecutor(args.sessions) as pool:
        listed = list(pool.map(one, sample(everything, args.questions, args.seed)))
    return [a for a in listed if a is not None], None not in listed


def _measured(values: Sequence[float], seed: int) -> tuple[float, tuple[float, float]]:
    return mean(values), interval(values, seed=seed) if values else (math.nan, math.nan)


def _spread(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
