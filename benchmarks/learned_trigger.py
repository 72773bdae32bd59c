"""Train triggers on the drafts of training files, and judge them on files that they were not trained on.

The points and their labels are those of `benchmarks.triggers`, recorded without the triggers that run the model again.
Features come from the recorded signals and from a BM25 index over all paragraphs of a file. Every file of `--data` is
judged twice: by a trigger that was trained on all training files, and by one trained without those of the same data
set ("elsewhere"). The data set is the first word of a file's name. Beside them stand, on the same points, the least
token probability, the least one among names and numbers, and the least one among those that are new. Intervals are by
bootstrap over questions.

Thresholds are chosen on the training files' multi-hop questions, for numbers of searches per question;
`benchmarks.calibrated` runs methods with them.

A point cannot be in need of retrieval unless its sentence states a name or number that the question does not contain,
or the answer, because of how labels are defined; `new` therefore judges only the sentences with such a name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.datasets import Question, corpus, load_questions, sample
from benchmarks.forced_signals import Forced, forced_signals
from benchmarks.further_features import (
    ATTENTION,
    FURTHER,
    READ_AGAIN,
    STATES_ALONE,
    WITH_STATES,
    further_features,
    margins_of,
    ranked,
)
from benchmarks.point_records import Row, single_hop, written
from benchmarks.runs import load_chat
from benchmarks.scoring import mean
from langgraph_dynrag.calibration.measures import calibration_error, roc_area, roc_area_difference
from langgraph_dynrag.calibration.training import LabelledPoint, Trained, fit, train
from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers.features import FEATURES, features_of
from langgraph_dynrag.triggers.learned_model import ModelKind

STEPS = " steps"
"""Ending of the name of a training file's questions that one passage answers."""
PLAIN = {
    "least token probability": "least_logprob",
    "least probability of a name": "least_name_logprob",
    "least probability of a new name": "least_new_name_logprob",
}
WITHOUT_INDEX = "without the index"
KINDS: tuple[ModelKind, ...] = ("logistic", "trees")
RATES = (0.3, 0.6, 1.0)
"""Searches per question that thresholds are chosen for."""
Points = Mapping[str, Sequence[tuple[LabelledPoint, str]]]
"""Points of each file, with the identifiers of their questions."""
States = Mapping[str, NDArray[np.float32]]
"""Hidden states of the points of each file, (points, depths, width)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draft what is missing, train, judge and report."""
    options = parser("Learned triggers, on data that they were not trained on.", dtype="bfloat16")
    options.add_argument("--data", type=Path, nargs="+", required=True, help="multi-hop questions to judge on")
    options.add_argument("--squad", type=Path, help="a SQuAD 1.1 file to judge on")
    options.add_argument("--train", type=Path, nargs="+", required=True, help="multi-hop questions to train on")
    options.add_argument("--steps", type=Path, nargs="*", default=[], help="files whose single steps are trained on")
    options.add_argument("--questions", type=int, default=100, help="questions from each file to judge on")
    options.add_argument("--train-questions", type=int, default=500, help="questions from each training file")
    options.add_argument("--train-steps", type=int, default=1000, help="single steps from each file of --steps")
    options.add_argument("--sessions", type=int, default=16, help="questions drafted concurrently")
    options.add_argument("--read-again", action="store_true", help="also judge margins and hidden states as features")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    chat = load_chat(args.model, args.dtype)
    judged = {p.stem: sample(load_questions(p), args.questions, args.seed) for p in args.data}
    if args.squad is not None:
        judged[args.squad.stem] = single_hop(args.squad, args.questions, args.seed)
    trained_on = {p.stem: sample(load_questions(p), args.train_questions, args.seed) for p in args.train}
    for p in args.steps:
        trained_on[p.stem + STEPS] = single_hop(p, args.train_steps, args.seed)
    found, complete = written(chat, judged, args, deadline, signals_only=True)
    tuning, done = written(chat, trained_on, args, deadline, signals_only=True)
    again: dict[str, list[Forced]] = {}
    if args.read_again:
        again = {name: forced_signals(chat, name, rows) for name, rows in {**found, **tuning}.items()}
    points = {name: with_features(rows, judged[name], again.get(name)) for name, rows in found.items()}
    training = {name: with_features(rows, trained_on[name], again.get(name)) for name, rows in tuning.items()}
    states = {name: np.stack([forced.states for forced in of]) for name, of in again.items()}
    figures = {
        "model": chat.lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "complete": complete and done,
        "machine": machine(),
        "training": {name: counted(of) for name, of in training.items()},
        "points": {name: counted(of) for name, of in points.items()},
        **judge_all(points, training, args.seed, states),
    }
    report = report_of(figures)
    note(report)
    finish("learned_trigger", figures, args.out, report)


def view_of(point: Row, question: str, index: BM25Retriever) -> DraftView:
    """Return the view of a recorded point's sentence, as a trigger sees it."""
    signals = point["signals"]
    draft = Draft(tuple(signals["pieces"]), tuple(signals["logprobs"]), tuple(signals["entropies"]))
    frequency = index.document_frequency
    return DraftView(question, point["before"], draft, len(draft), document_frequency=frequency)


def with_features(
    rows: Sequence[Row], questions: Sequence[Question], again: Sequence[Forced] | None = None
) -> list[tuple[LabelledPoint, str]]:
    """Return the points of a file with all features. The index holds the paragraphs of all its questions."""
    index = BM25Retriever.from_documents(corpus(questions))
    names = tuple(FEATURES)
    found: list[tuple[LabelledPoint, str]] = []
    for number, row in enumerate(rows):
        for point in row["points"]:
            view = view_of(point, row["question"].text, index)
            named = dict(zip(names, features_of(view, names), strict=True)) | further_features(point, index)
            if again is not None:
                named |= margins_of(view, again[len(found)].margins)
            found.append((LabelledPoint(number, named, point["needed"]), row["question"].id))
    return found


def counted(points: Sequence[tuple[LabelledPoint, str]]) -> dict[str, int]:
    """Return the numbers of questions, points, and points that needed retrieval."""
    return {
        "questions": len({question for _, question in points}),
        "points": len(points),
        "needed": sum(point.needed for point, _ in points),
    }


def data_set(name: str) -> str:
    """Return the data set that a file belongs to."""
    return name.split("_", maxsplit=1)[0]


def fitted(training: Points, kind: ModelKind, seed: int, features: Sequence[str] = tuple(FEATURES)) -> Trained:
    """Train on the points of several files."""
    return train(together_of(training), features, kind=kind, seed=seed)


def together_of(training: Points) -> list[LabelledPoint]:
    """Return the points of several files; questions of different files are different ones."""
    numbers: dict[tuple[str, int], int] = {}
    return [
        replace(point, question=numbers.setdefault((name, point.question), len(numbers)))
        for name, of in training.items()
        for point, _ in of
    ]


def judge_all(points: Points, training: Points, seed: int, states: States | None = None) -> dict[str, Any]:
    """Train every trigger and judge it: `cross_validation` on the training files, `judged` on each other file.

    With the hidden states of all points, a probe is judged as well, and so are the margins that came with them.

    The kind with the larger area in cross-validation is the one that thresholds are chosen for.
    """
    free = [name for name, feature in FEATURES.items() if not feature.index]
    everywhere = {kind: fitted(training, kind, seed) for kind in KINDS}
    chosen = max(KINDS, key=lambda kind: everywhere[kind].auroc)
    rows: dict[str, list[dict[str, Any]]] = {}
    pooled: dict[str, list[tuple[LabelledPoint, str, float]]] = {}
    for name, of in points.items():
        elsewhere = {n: t for n, t in training.items() if data_set(n) != data_set(name)}
        triggers = {f"learned, {kind}": trained for kind, trained in everywhere.items()}
        triggers |= {f"learned elsewhere, {kind}": fitted(elsewhere, kind, seed) for kind in KINDS}
        triggers[f"learned elsewhere, logistic, {WITHOUT_INDEX}"] = fitted(elsewhere, "logistic", seed, free)
        scores = {plain: [-_number(p.values[feature]) for p, _ in of] for plain, feature in PLAIN.items()}
        for trigger, trained in triggers.items():
            model = trained.model
            scores[trigger] = [model.probability([p.values[f] for f in model.features]) for p, _ in of]
        known, judged = together_of(elsewhere), [p for p, _ in of]
        if states:
            read = with_states(known, np.concatenate([states[n] for n in elsewhere]))
            for kind in KINDS:
                model = fit(read, tuple(FEATURES), kind=kind, seed=seed)
                inputs = [p.inputs(model) for p in with_states(judged, states[name])]
                scores[f"learned elsewhere, {kind}, {WITH_STATES}"] = [model.uncalibrated(x) for x in inputs]
            scores[STATES_ALONE] = [_number(x[-1]) for x in inputs]
        for more, features in {**FURTHER, **(READ_AGAIN if states else {})}.items():
            scores[f"learned elsewhere, logistic, {more}"] = ranked(known, judged, (*FEATURES, *features))
        rows[name] = [judged_by(trigger, of, s, scores, seed) for trigger, s in scores.items()]
        for trigger, s in scores.items():
            pooled.setdefault(trigger, []).extend((p, q, v) for (p, q), v in zip(of, s, strict=True))
    if len(points) > 1:
        together = [(p, f"{p.question} {q}") for p, q, _ in next(iter(pooled.values()))]
        scores = {trigger: [v for *_, v in of] for trigger, of in pooled.items()}
        rows["all"] = [judged_by(trigger, together, s, scores, seed) for trigger, s in scores.items()]
    return {
        "judged": rows,
        "cross_validation": {
            kind: {
                "auc": t.auroc,
                "auc_interval": t.auroc_interval,
                "calibration_error": t.calibration_error,
                "points": t.points,
                "needed": t.needed,
            }
            for kind, t in everywhere.items()
        },
        "weights": dict(zip(everywhere["logistic"].model.features, everywhere["logistic"].model.weights, strict=True)),
        "chosen": chosen,
        "model_of_trigger": asdict(everywhere[chosen].model),
        "thresholds": thresholds(training, everywhere[chosen]),
    }


def with_states(points: Sequence[LabelledPoint], states: NDArray[np.float32]) -> list[LabelledPoint]:
    """Return the points with their hidden states, (points, depths, width), for a probe."""
    return [replace(p, states=of) for p, of in zip(points, states, strict=True)]


def thresholds(training: Points, trained: Trained) -> list[dict[str, float]]:
    """Return for each rate the thresholds of the least token probabilities, of RIND and ETC, and of the learned one.

    The learned probabilities of the training points come from cross-validation.
    """
    kept, questions, at = [], 0, 0
    for name, of in training.items():
        if not name.endswith(STEPS):
            kept += list(zip([p for p, _ in of], trained.probabilities[at : at + len(of)], strict=True))
            questions += len({p.question for p, _ in of})
        at += len(of)
    found = []
    for rate in RATES:
        count = min(len(kept), round(rate * questions))  # the points at which the trigger fires
        learned = sorted((value for _, value in kept), reverse=True)[count - 1]
        row = {"rate": rate, "learned": learned}
        for name in ATTENTION:  # a sentence without a content word has no score and never fires
            row[name] = sorted((s for p, _ in kept if (s := p.values[name]) is not None), reverse=True)[count - 1]
        for name in ("least_logprob", "least_new_name_logprob"):
            row[name.replace("logprob", "probability")] = math.exp(
                sorted(_number(p.values[name]) for p, _ in kept)[count - 1]
            )
        found.append(row)
    return found


def judged_by(
    trigger: str,
    of: Sequence[tuple[LabelledPoint, str]],
    scores: Sequence[float],
    all_scores: Mapping[str, Sequence[float]],
    seed: int,
) -> dict[str, Any]:
    """Return a trigger's row: its area, the difference to the least token probability, and its calibration."""
    labels, groups = [p.needed for p, _ in of], [q for _, q in of]
    area, low, high = roc_area(scores, labels, groups=groups, seed=seed)
    plain = all_scores["least token probability"]
    more, more_low, more_high = roc_area_difference(scores, plain, labels, groups=groups, seed=seed)
    row: dict[str, Any] = {"trigger": trigger, "n": len(of), "auc": area, "auc_interval": (low, high)}
    row |= {"over_least": more, "over_least_interval": (more_low, more_high)}
    new = [i for i, (p, _) in enumerate(of) if _number(p.values["new_names"]) > 0]
    area, low, high = roc_area([scores[i] for i in new], [labels[i] for i in new], groups=[groups[i] for i in new])
    row |= {"n_new": len(new), "auc_new": area, "auc_new_interval": (low, high)}
    if trigger not in PLAIN and trigger != STATES_ALONE and not trigger.endswith((*FURTHER, *READ_AGAIN, WITH_STATES)):
        row["calibration_error"] = calibration_error(scores, labels)
        row["error_by_chance"] = error_by_chance(scores, seed)
    return row


def error_by_chance(probabilities: Sequence[float], seed: int, *, draws: int = 200) -> float:
    """Return the mean calibration error of probabilities that are exactly right, for as many points.

    With few points in a bin, the share of "yes" is off by chance; labels are drawn with these very probabilities.
    """
    rng = np.random.default_rng(seed)
    p = np.asarray(probabilities)
    return mean([calibration_error(p.tolist(), (rng.random(len(p)) < p).tolist()) for _ in range(draws)])


def _number(value: float | None) -> float:
    """Return a feature's value; 0, the log-probability of certainty, where it has none."""
    return 0.0 if value is None else value


def report_of(figures: Mapping[str, Any]) -> str:
    """Format the figures."""
    report = f"# Learned triggers: {figures['model']}, {figures['dtype']}, seed {figures['seed']}\n\n"
    columns = ["file", "questions", "points", "needed"]
    report += "Trained on\n\n" + table([{"file": n, **of} for n, of in figures["training"].items()], columns)
    cross = [{"kind": kind, **of, "auc": _spread(of, "auc")} for kind, of in figures["cross_validation"].items()]
    report += "\n\nCross-validation over their questions\n\n"
    report += table(cross, ["kind", "points", "needed", "auc", "calibration_error"])
    shown = ["trigger", "n", "auc", "over_least", "n_new", "auc_new", "calibration_error", "error_by_chance"]
    for name, rows in figures["judged"].items():
        report += f"\n\n## {name}\n\n"
        report += table([{**r, **{k: _spread(r, k) for k in ("auc", "over_least", "auc_new")}} for r in rows], shown)
    weights = [{"feature": f"`{name}`", "weight": weight} for name, weight in figures["weights"].items()]
    report += "\n\n## Weights of the standardised features (logistic, all training files)\n\n"
    report += table(weights, ["feature", "weight"])
    report += f"\n\n## Thresholds by searches per question, on the training files ({figures['chosen']})\n\n"
    report += table(figures["thresholds"], list(figures["thresholds"][0]))
    if not figures["complete"]:
        report += "\n\nStopped before all questions were drafted; run the same command again to continue."
    return report


def _spread(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
