"""F1 lost on questions unrelated to the active adapters, with and without the forgetting guard.

Measures the first failure signature of the tutorial paper. Each question is asked while the adapters of k other
passages are merged into the model (the mean of their updates, at full strength): `closed` book, and with its own
passage in the `context`. The drop is the F1 without adapters minus the F1 with them. With the guard, the adapters are
weakened until the model's answers to eight probes diverge by no more than the bound, or are left out. The cost of the
guard shows in `own`: closed book with the adapter of the passage that answers, where a negative drop is a gain.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.knowledge_fidelity import parametrizer
from benchmarks.parametric_runs import Answers, Asked, open_store, parametrize, recipe_model
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, draw, load_facts
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.guards.forgetting import ForgettingGuard
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import f1

KINDS = ("closed", "context")
OWN = "own"


@dataclass(frozen=True, slots=True)
class Weakened:
    """The effect of a guard on some adapters."""

    part: float
    """Remaining share of their strength; 0 if they are left out."""
    unguarded: float | None
    """Nats per token of the probes' answers, at full strength; None without a guard."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, ask, and report."""
    options = parser("F1 lost to the adapters of unrelated documents.", dtype="bfloat16")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument("--passages", type=int, default=40, help="passages drawn by the seed")
    options.add_argument("--per-passage", type=int, default=1, help="maximum questions per passage")
    options.add_argument("--k", type=int, nargs="+", default=[1, 3, 5], help="numbers of adapters per question")
    options.add_argument("--bounds", type=float, nargs="+", default=[0.05], help="bounds of the guard, nats per token")
    options.add_argument("--recipe", default="distill")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    facts = draw(load_facts(args.data), passages=args.passages, per_passage=args.per_passage, seed=args.seed)
    passages = list(dict.fromkeys(Passage(f.passage, f.title) for f in facts))
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    with open_store(lm) as store:
        model = recipe_model(lm, store, get_recipe(args.recipe), max_adapters=max(args.k))
        complete = parametrize(model, parametrizer, passages, deadline)
        facts = [f for f in facts if model.knows(f.passage)]
        known = [p.text for p in passages if model.knows(p.text)]
        settings: list[tuple[int, tuple[str, ...], list[tuple[AdapterKey, ...]]]] = [
            (k, KINDS, [_others(fact, known, model, k, args.seed) for fact in facts]) for k in args.k
        ]
        settings.append((1, (OWN,), [(model.key(fact.passage),) for fact in facts]))
        answers = Answers(lm, args.dtype)
        plain = {kind: [_asked(fact, kind) for fact in facts] for kind in (*KINDS, OWN)}
        complete &= answers.ask([a for asked in plain.values() for a in asked], None, deadline)
        rows = []
        for k, kinds, keys in settings:
            parts: dict[float | None, list[Weakened | None]] = {None: [Weakened(1.0, None)] * len(facts)}
            parts |= {bound: _guarded(bound, keys, model, args.dtype, deadline) for bound in args.bounds}
            for kind in kinds:
                for bound, weakened in parts.items():
                    asked = [
                        None if w is None else _asked(f, kind, key, w.part)
                        for f, key, w in zip(facts, keys, weakened, strict=True)
                    ]
                    complete &= answers.ask([a for a in asked if a], model, deadline) and None not in asked
                    about = {"question": kind, "k": k, "bound": bound or "no guard"}
                    rows.append(about | _figures(facts, plain[kind], asked, weakened, answers))
                    note(rows[-1])
    _report(args, lm, rows, complete=complete)


def _others(fact: Fact, known: Sequence[str], model: ParametricModel, k: int, seed: int) -> tuple[AdapterKey, ...]:
    """Return adapters of passages unrelated to the question: the first k of a fixed order, so that sets are nested."""
    others = [p for p in known if p != fact.passage]
    random.Random(f"{seed}/{fact.question}").shuffle(others)
    return tuple(model.key(p) for p in others[:k])


def _asked(fact: Fact, kind: str, keys: tuple[AdapterKey, ...] = (), part: float = 1.0) -> Asked:
    plain = Asked(fact.question, (fact.passage,) if kind == "context" else ())
    return replace(plain, adapters=keys, strength=part) if keys and part else plain


def _guarded(
    bound: float, keys: Sequence[tuple[AdapterKey, ...]], model: ParametricModel, dtype: str, deadline: Deadline
) -> list[Weakened | None]:
    """Return the guard's effect on each question's adapters; None if there was no time."""
    guard, records = ForgettingGuard(model, bound=bound), Records("forgetting")
    found: list[Weakened | None] = []
    for chosen in keys:
        about = {"model": model.lm.fingerprint, "dtype": dtype, "keys": [key.digest for key in chosen], "bound": bound}
        if (record := records.get(key_of(about))) is None and not deadline.over:
            selection = model.select(chosen)
            assert selection is not None
            made = guard.guarded(selection)
            part = made.part if made.selection is not None else 0.0
            record = {"part": round(part, 4), "unguarded": made.unguarded}
            records.put(key_of(about), about, record)
        found.append(None if record is None else Weakened(record["part"], record["unguarded"]))
    return found


def _figures(
    facts: Sequence[Fact],
    plain: Sequence[Asked],
    asked: Sequence[Asked | None],
    weakened: Sequence[Weakened | None],
    answers: Answers,
) -> dict[str, Any]:
    """Return the drop over the questions that have an answer both with and without adapters."""
    without, having, passages, told = [], [], [], []
    for fact, one, other, made in zip(facts, plain, asked, weakened, strict=True):
        base = answers.known(one)
        adapted = None if other is None else answers.known(other)
        if base is not None and adapted is not None and made is not None:
            without.append(100 * f1(base, fact.answers))
            having.append(100 * f1(adapted, fact.answers))
            passages.append(fact.passage)
            told.append(made)
    drops = [a - b for a, b in zip(without, having, strict=True)]
    low, high = interval(drops, groups=passages)
    nats = [w.unguarded for w in told if w.unguarded is not None]
    return {
        "n": len(drops),
        "f1 without adapters": mean(without),
        "f1": mean(having),
        "drop": mean(drops),
        "low": low,
        "high": high,
        "interval": f"{low:.1f} to {high:.1f}",
        "part of the strength": mean([w.part for w in told]),
        "left out": sum(not w.part for w in told),
        "nats at full strength": mean(nats) if nats else None,
    }


def _report(args: Any, lm: CausalLM, rows: Sequence[dict[str, Any]], *, complete: bool) -> None:
    report = f"# F1 lost to the adapters of unrelated documents: {lm.name}, {args.dtype}\n\n"
    report += (
        f"Questions of {args.data.name}, recipe {args.recipe}, seed {args.seed}. F1 in percent; 95 % intervals of "
    )
    report += "the drop by bootstrap over passages.\n\n"
    columns = ["question", "k", "bound", "n", "f1 without adapters", "f1", "drop", "interval", "part of the strength"]
    report += table(rows, [*columns, "left out", "nats at full strength"])
    note(report)
    highest = {
        f"{bound:g}": max(row["high"] for row in rows if row["bound"] == bound and row["question"] != OWN)
        for bound in args.bounds
    }
    figures = {
        "complete": complete,
        "guarded_drop_high": highest,
        "rows": rows,
        "model": lm.name,
        "dtype": args.dtype,
        "data": args.data.name,
        "recipe": get_recipe(args.recipe).to_dict(),
        "seed": args.seed,
        "machine": machine(),
    }
    finish("forgetting", figures, args.out, report)


if __name__ == "__main__":
    main()
