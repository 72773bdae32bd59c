"""Measure what translators learn, and how fast: both kinds on the same passages, steps and questions.

Each `--run KIND:RATE` trains a translator (`distill`, adapters of the same form) in a separate folder, and resumes
there if it was stopped; `--trained DIR` uses one from `dynprag train-translator`. For each kind, the run with the
lowest loss on the held-out passages of the corpus is evaluated on passages of another file, by the loss on their
questions without the passages in the prompt (nats per token of the answer), with

- `own`: the passage's translated adapter; `other`: the next passage's; `mean`: the mean of all adapters; `base`: none.

If `other - own` and `mean - own` are above 0, the translator has learnt from the passage, not only the form of answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from benchmarks.contract import Deadline, finish, machine, note, parser, records_folder, table
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import by_passage, draw, load_facts
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.config import NetworkKind, TranslatorConfig
from llamaindex_prag.translator.training.corpus import Corpus, Lesson, read_lessons, split
from llamaindex_prag.translator.training.plan import TrainingPlan
from llamaindex_prag.translator.training.saved_state import TrainingRun
from llamaindex_prag.translator.training.state_cache import KeptStates
from llamaindex_prag.translator.training.trainer import TranslatorTrainer
from llamaindex_prag.translator.training.validation import Validation
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM

LOSSES = ("own", "other", "mean", "base")
Run = tuple[str, float, TrainingRun, Path]
"""Kind, learning rate, training run, and the folder of the best checkpoint."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and report."""
    options = parser("What translators learn.")
    options.add_argument("--corpus", type=Path, help="JSON lines to train on")
    options.add_argument(
        "--data", type=Path, required=True, help="evaluation data: a SQuAD 1.1 or MuSiQue-Ans file, or a folder"
    )
    options.add_argument("--passages", type=int, default=100, help="passages of --data, drawn by the seed")
    options.add_argument("--run", action="append", metavar="KIND:RATE", help="such as shared:1e-3")
    options.add_argument(
        "--trained",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder of dynprag train-translator, instead of --run: evaluate only",
    )
    options.add_argument("--recipe", default="distill", help="sets the form of the adapters of both kinds")
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--documents", type=int, default=8, help="documents per step")
    options.add_argument("--questions", type=int, default=8, help="questions per document and step")
    options.add_argument("--phrases", type=int, default=64, help="rule-based questions that each document has")
    options.add_argument("--unrelated", type=int, default=1, help="additional questions on other subjects")
    options.add_argument("--passages-of-corpus", type=int, help="use only the first N passages; default: all")
    options.add_argument("--states", type=Path, help="a folder for the base model's states, shared by all runs")
    options.add_argument("--validate-every", type=int, default=200)
    options.add_argument("--validation", type=int, default=64, help="held-out passages of the corpus")
    options.add_argument("--keep", type=Path, help="copy the checkpoint of the best `shared` here")
    args = options.parse_args(arguments)
    if bool(args.run) == bool(args.trained) or (args.run and not args.corpus):
        options.error("give --run with --corpus, or --trained")
    wanted = [_wanted(text) for text in args.run or ()]
    unseen = dev_lessons(args)
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    runs = [_known(folder, lm) for folder in args.trained] if args.trained else _runs(wanted, args, lm)
    complete = all(run.ended for _, _, run, _ in runs)
    best = {kind: min((r for r in runs if r[0] == kind), key=lambda r: r[2].best) for kind, *_ in runs}
    judged = {kind: _judged(lm, folder, unseen) for kind, (_, _, _, folder) in best.items()}
    if args.keep and "shared" in best:
        Translator.load(best["shared"][3], lm).save(args.keep)
    _report(args, lm, runs, best, judged, complete=complete)


def _runs(wanted: Sequence[tuple[str, float]], args: Any, lm: CausalLM) -> list[Run]:
    deadline = Deadline(args.max_minutes)
    corpus = split(read_lessons(args.corpus)[: args.passages_of_corpus], validation=args.validation, seed=args.seed)
    runs: list[Run] = []
    for kind, rate in wanted:
        folder = _folder(args, kind, rate)
        runs.append((kind, rate, _trained(lm, kind, rate, corpus, folder, args, deadline), folder))
        note(f"{kind}, {rate:g}: {runs[-1][2].history[-1]}")
    return runs


def _known(folder: Path, lm: CausalLM) -> Run:
    """Describe an earlier training, from the record in its best checkpoint."""
    made = Translator.load(folder, lm)
    history = _history(made.record)
    plan, last = made.record["plan"], history[-1]
    ended = "" if made.record["history"][-1]["step"] < plan["steps"] else "all steps are done"
    run = TrainingRun(last["step"], history, min(e["own"] for e in history), last["seconds"], ended)
    return made.config.kind, plan["learning_rate"], run, folder


def _history(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the history of a training and of those it continued from, with cumulative steps and seconds."""
    before = _history(record["start"]) if record.get("start") else []
    if not before:
        return list(record["history"])
    step, seconds = before[-1]["step"], before[-1]["seconds"]
    later = record["history"][1:]
    return [*before, *({**e, "step": e["step"] + step, "seconds": e["seconds"] + seconds} for e in later)]


def dev_lessons(args: Any) -> list[Lesson]:
    """Return the passages of the evaluation file, each with its questions."""
    facts = draw(load_facts(args.data), passages=args.passages, per_passage=99, seed=args.seed)
    return [
        Lesson(passage, asked[0].title, tuple(QA(f.question, f.answers[0]) for f in asked))
        for passage, asked in by_passage(facts).items()
    ]


def _wanted(text: str) -> tuple[str, float]:
    kind, _, rate = text.partition(":")
    if kind not in get_args(NetworkKind):
        raise ConfigurationError(f"--run {text}: known kinds are {', '.join(get_args(NetworkKind))}, as in shared:1e-3")
    try:
        return kind, float(rate)
    except ValueError:
        raise ConfigurationError(f"--run {text}: {rate!r} is not a learning rate, as in {kind}:1e-3") from None


def _folder(args: Any, kind: str, rate: float) -> Path:
    form = f"{kind}-{rate:g}-{args.recipe}-{args.steps}x{args.documents}x{args.questions}of{args.phrases}"
    form += f"-{args.unrelated}-{args.passages_of_corpus or 'all'}-{args.dtype}-{args.seed}"
    return records_folder() / "translators" / Path(args.model).name / form


def _trained(
    lm: CausalLM, kind: str, rate: float, corpus: Corpus, folder: Path, args: Any, deadline: Deadline
) -> TrainingRun:
    config = TranslatorConfig.of(lm, cast("NetworkKind", kind), recipe=get_recipe(args.recipe), seed=args.seed)
    plan = TrainingPlan.of(kind).changed(
        steps=args.steps,
        documents=args.documents,
        questions=args.questions,
        phrases=args.phrases,
        unrelated=args.unrelated,
        learning_rate=rate,
        seed=args.seed,
        validate_every=args.validate_every,
        warm_up=min(50, args.steps // 10),
    )
    with contextlib.ExitStack() as stack:
        kept = None
        if args.states:
            kept = stack.enter_context(KeptStates.for_model(args.states, lm, gigabytes=32))
        trainer = TranslatorTrainer(Translator(lm, config), corpus, folder, plan, kept=kept, health_check=None)
        return trainer.train(over=lambda: deadline.over)


def _judged(lm: CausalLM, folder: Path, lessons: Sequence[Lesson]) -> dict[str, Any]:
    """Return the losses of each passage, and the translator's size and steps."""
    translator = Translator.load(folder, lm)
    losses = DocumentLosses(lm.engine, translator.config.layout)
    found = Validation(translator, losses, lessons, TrainingPlan(phrases=0)).losses()
    return {
        "parameters": translator.parameters,
        "bytes_per_document": translator.config.representation_bytes,
        "steps": _history(translator.record)[-1]["step"],
        **dict(zip(LOSSES, found, strict=True)),
    }


def _difference(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Return the mean of `one` minus `other` over passages, with its interval."""
    values = [a - b for a, b in zip(one, other, strict=True)]
    low, high = interval(values)
    return {"mean": mean(values), "low": low, "high": high, "text": f"{mean(values):.3f} [{low:.3f}, {high:.3f}]"}


def _report(
    args: Any,
    lm: CausalLM,
    runs: Sequence[Run],
    best: dict[str, Run],
    judged: dict[str, dict[str, Any]],
    *,
    complete: bool,
) -> None:
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for kind, found in judged.items():
        gained = {f"{name} - own": _difference(found[name], found["own"]) for name in ("other", "mean", "base")}
        rows.append(
            {
                "kind": kind,
                "learning rate": f"{best[kind][1]:g}",
                "parameters": f"{found['parameters']:,}",
                "steps": found["steps"],
                **{name: mean(found[name]) for name in LOSSES},
                **{name: d["text"] for name, d in gained.items()},
            }
        )
        figures[kind] = {
            "learning_rate": best[kind][1],
            **{k: v for k, v in found.items() if k not in LOSSES},
            **{name: mean(found[name]) for name in LOSSES},
            **gained,
        }
    if len(judged) == 2 and len({run.steps for _, _, run, _ in best.values()}) == 1:  # needs equally many steps
        figures["dyprag - shared"] = _difference(judged["dyprag"]["own"], judged["shared"]["own"])
    passages = len(next(iter(judged.values()))["own"])
    report = f"# What translators learn: {lm.name}, {args.dtype}\n\n"
    if args.run:
        report += f"{args.steps} steps of {args.documents} passages with {args.questions} questions each; recipe "
        report += f"{args.recipe}, seed {args.seed}. "
    report += f"Evaluated on {passages} passages of {args.data.name}: nats per token of the answers, 95 % intervals of "
    report += "the paired differences by bootstrap over passages.\n\n"
    report += table(rows, list(rows[0])) + "\n\n"
    if "dyprag - shared" in figures:
        report += f"`own`, dyprag minus shared: {figures['dyprag - shared']['text']}\n\n"
    told = [
        {
            "kind": kind,
            "learning rate": f"{rate:g}",
            **{k: v for k, v in entry.items() if k in (*LOSSES, "step")},
            "minutes": entry["seconds"] / 60,
        }
        for kind, rate, run, _ in runs
        for entry in run.history
    ]
    report += "On the held-out passages of the corpus, during training:\n\n"
    report += table(told, ["kind", "learning rate", "step", "minutes", *LOSSES])
    note(report)
    figures |= {
        "complete": complete,
        "passages": passages,
        "data": args.data.name,
        "corpus": args.corpus.name if args.corpus else None,
        "recipe": args.recipe,
        "steps": args.steps,
        "documents": args.documents,
        "questions": args.questions,
        "runs": [{"kind": k, "learning_rate": r, "history": run.history, "ended": run.ended} for k, r, run, _ in runs],
        "model": lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "machine": machine(),
    }
    finish("translator_learning", figures, args.out, report)


if __name__ == "__main__":
    main()
