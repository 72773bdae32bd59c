"""Measure how well facts of a passage can be recovered from the weights, without the passage in the prompt.

The questions can each be answered from one passage (SQuAD, MuSiQue's steps, the project's corpus). Each is asked

- closed book, and with the passage in the prompt;
- with the passage's own adapter (`prag`, `distill`) and nothing in the prompt, and with both (`combined`);
- with another passage's adapter, and with a document-free warm-up adapter: these only improve the form of an answer;
- with a translator's adapter for the passage (`translated`), if a translator is given.

`recovery` = (own - other passage's) / (in context - closed book), in F1. `unrelated_drop`: the F1 that questions lose,
in context, when another passage's adapter is active. `int4_minus_own`: the effect of storing adapters with 4 bits per
value. Intervals are by bootstrap over passages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.parametric_runs import Answers, Asked, copy_adapters, open_store, parametrize, recipe_model
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, by_passage, draw, load_facts
from llamaindex_prag.adapters.active_adapters import BESIDE_TEXT
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.recipe_options import changes_of
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.training.warm_up import warm_up
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import contains, f1

SHARED = ("closed", "context", "warm-up")
TRANSLATED = "translated"
DERIVED = ("recovery", "combined_minus_context", "unrelated_drop", "int4_minus_own")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, ask, and report."""
    options = parser("Facts recovered from the weights.", dtype="bfloat16")
    options.add_argument("--squad", type=Path, help="a SQuAD 1.1 file")
    options.add_argument("--squad-passages", type=int, default=56)
    options.add_argument("--squad-questions", type=int, default=5, help="maximum questions per passage")
    options.add_argument("--musique", type=Path, help="a MuSiQue-Ans file")
    options.add_argument("--musique-steps", type=int, default=60)
    options.add_argument("--own", type=Path, default=Path("examples/data"), help="a folder with corpus and questions")
    options.add_argument("--own-passages", type=int, default=20)
    options.add_argument(
        "--combined-strength", type=float, default=BESIDE_TEXT, help="strength of an adapter used with its passage"
    )
    options.add_argument(
        "--recipes",
        default="distill,prag",
        help="the first one gives the benchmark's main figures; '' for the translated rows only",
    )
    options.add_argument(
        "--change",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value to change in the recipes, such as rank=2 or alpha=4",
    )
    options.add_argument("--writer", help="another model that writes the questions")
    options.add_argument("--known-only", action="store_true", help="train nothing; use existing adapters only")
    options.add_argument("--translator", help="a checkpoint, for the translated rows")
    options.add_argument("--warm-up", type=Path, help="a MuSiQue-Ans train file, for the warm-up control")
    options.add_argument("--warm-up-pairs", type=int, default=120)
    args = options.parse_args(arguments)
    deadline, training = Deadline(args.max_minutes), Deadline(0.75 * args.max_minutes)
    recipes = _recipes(options, args)
    facts = _facts(args)
    note(f"{len(facts)} questions on {len(by_passage(facts))} passages")
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    writer = CausalLM.from_pretrained(args.writer, dtype=args.dtype) if args.writer else None
    answers = Answers(lm, args.dtype, writer=writer)
    store = open_store(lm, writer=writer)
    conditions: dict[str, list[Asked]] = {
        "closed": [Asked(f.question) for f in facts],
        "context": [Asked(f.question, (f.passage,)) for f in facts],
    }
    complete = answers.ask([a for asked in conditions.values() for a in asked], None, deadline)
    if args.warm_up and recipes:
        conditions["warm-up"], done = _warmed_up(args, lm, store, recipes[0], facts, answers, deadline)
        complete &= done
    for recipe in recipes:
        model = recipe_model(lm, store, recipe)
        passages = [Passage(f.passage, f.title) for f in facts]
        if not args.known_only:
            complete &= parametrize(model, partial(parametrizer, writer=writer), passages, training)
        found = _conditions(recipe.name, model.key, facts, args.combined_strength)
        complete &= answers.ask([a for asked in found.values() for a in asked if _ready(a, model)], model, deadline)
        conditions |= found
    if args.translator:
        found, done = _translated(args, lm, store, facts, answers, deadline)
        complete &= done
        conditions |= found
    if recipes:
        own = conditions[f"{recipes[0].name} own"]
        conditions["int4"], done = _quantized(lm, store, recipes[0], own, answers, deadline, writer)
        complete &= done
    store.close()
    _report(args, lm, recipes, facts, conditions, answers, writer=writer, complete=complete)


def _recipes(options: argparse.ArgumentParser, args: argparse.Namespace) -> list[Recipe]:
    recipes = [_recipe(name, changes_of(args.change)) for name in args.recipes.split(",") if name]
    if not recipes and not args.translator:
        options.error("--recipes is empty and --translator is missing: there is nothing to measure")
    if args.writer and not any(recipe.augmentation == "model" for recipe in recipes):
        options.error("--writer needs a recipe with augmentation=model")
    return recipes


def _recipe(name: str, changes: dict[str, Any]) -> Recipe:
    """Return a recipe whose questions the model itself writes, however small it is, unless a change says otherwise."""
    found = get_recipe(name)
    return found.changed(**({"augmentation": "model"} if found.questions else {}) | changes)


def _facts(args: Any) -> list[Fact]:
    found: list[Fact] = []
    if args.squad:
        found += draw(
            load_facts(args.squad), passages=args.squad_passages, per_passage=args.squad_questions, seed=args.seed
        )
    if args.musique:
        found += draw(load_facts(args.musique), passages=args.musique_steps, per_passage=1, seed=args.seed)
    if args.own_passages:
        found += draw(load_facts(args.own), passages=args.own_passages, per_passage=9, seed=args.seed)
    return found


def parametrizer(model: ParametricModel, writer: CausalLM | None = None) -> Parametrizer:
    """Return a parametrizer; a model that writes the questions rewrites passages only if the recipe trains on them.

    Args:
        model: The model that is trained.
        writer: The model that writes the questions; None: the one that is trained.
    """
    recipe = model.recipe
    if recipe.augmentation != "model":
        return Parametrizer(model)
    augmenter = Augmenter(
        writer or model.lm,
        questions=max(recipe.questions, 1),
        rewrite=recipe.objective == "next_token",
        cache=model.store,  # type: ignore[arg-type]
    )
    return Parametrizer(model, augmenter=augmenter)


def _warmed_up(
    args: Any, lm: CausalLM, store: Any, recipe: Recipe, facts: Sequence[Fact], answers: Answers, deadline: Deadline
) -> tuple[list[Asked], bool]:
    pairs = [(f.question, f.answers[0]) for f in load_facts(args.warm_up)][: args.warm_up_pairs]
    key = warm_up(lm, store, recipe, pairs)
    asked = [Asked(f.question, adapters=(key,)) for f in facts]
    model = recipe_model(lm, store, recipe)
    return asked, answers.ask(asked, model, deadline)


def _quantized(
    lm: CausalLM,
    store: LMDBStore,
    recipe: Recipe,
    own: Sequence[Asked],
    answers: Answers,
    deadline: Deadline,
    writer: CausalLM | None,
) -> tuple[list[Asked], bool]:
    """Ask with the same adapters, stored with 4 bits per value."""
    with open_store(lm, "int4", writer=writer) as small:
        model = recipe_model(lm, small, recipe)
        copy_adapters(store, small, [key for asked in own for key in asked.adapters])
        asked = [replace(a, encoding="int4") for a in own]
        return asked, answers.ask([a for a in asked if _ready(a, model)], model, deadline)


def _translated(
    args: Any, lm: CausalLM, store: LMDBStore, facts: Sequence[Fact], answers: Answers, deadline: Deadline
) -> tuple[dict[str, list[Asked]], bool]:
    translator = Translator.load(args.translator, lm)
    model = ParametricModel(lm, store, recipe=translator.config.recipe, max_adapters=1, translator=translator).attach()
    assert model.translations is not None
    model.translations.keep([Passage(f.passage, f.title) for f in facts], progress=True)
    found = _conditions(TRANSLATED, translator.key, facts, args.combined_strength)
    return found, answers.ask([a for asked in found.values() for a in asked], model, deadline)


def _conditions(
    name: str, key: Callable[[str], AdapterKey], facts: Sequence[Fact], beside: float
) -> dict[str, list[Asked]]:
    # Controls use another passage of the same file, so that they are of the same kind.
    others: dict[str, str] = {}
    for data in dict.fromkeys(f.data for f in facts):
        passages = list(by_passage([f for f in facts if f.data == data]))
        if len(passages) < 2:
            raise ConfigurationError(f"{data} has one passage; the control needs another passage of the same file")
        others |= {p: passages[(i + len(passages) // 2) % len(passages)] for i, p in enumerate(passages)}
    own = {p: (key(p),) for p in others}
    return {
        f"{name} own": [Asked(f.question, adapters=own[f.passage]) for f in facts],
        f"{name} other": [Asked(f.question, adapters=own[others[f.passage]]) for f in facts],
        f"{name} combined": [Asked(f.question, (f.passage,), own[f.passage], beside) for f in facts],
        f"{name} unrelated": [Asked(f.question, (f.passage,), own[others[f.passage]], beside) for f in facts],
    }


def _ready(asked: Asked, model: ParametricModel) -> bool:
    return all(key in model.store for key in asked.adapters)


def _report(
    args: Any,
    lm: CausalLM,
    recipes: Sequence[Recipe],
    facts: Sequence[Fact],
    conditions: Mapping[str, Sequence[Asked]],
    answers: Answers,
    *,
    writer: CausalLM | None,
    complete: bool,
) -> None:
    """Report each way to create adapters, over the questions that have an answer under all of its conditions."""
    given = {name: [answers.known(a) for a in asked] for name, asked in conditions.items()}
    figures: dict[str, Any] = {"complete": complete}
    report = f"# Facts recovered from the weights: {lm.name}, {args.dtype}\n\n"
    report += f"Seed {args.seed}. F1 in percent; intervals: 95 %, by bootstrap over passages.\n"
    made_by = [r.name for r in recipes] + ([TRANSLATED] if args.translator else [])
    for maker in made_by:
        names = [n for n in given if n in SHARED or n.split()[0] == maker]
        names += ["int4"] if maker == made_by[0] and maker != TRANSLATED else []
        kept = [i for i in range(len(facts)) if all(given[n][i] is not None for n in names)]
        scored = {n: _Scored([facts[i] for i in kept], [str(given[n][i]) for i in kept]) for n in names}
        sets = {"all": list(range(len(kept)))}
        for place, i in enumerate(kept):
            sets.setdefault(facts[i].data, []).append(place)
        told = [_row(name, scored[name], sets) for name in names]
        found = {data: _derived(scored, maker, which) for data, which in sets.items() if which}
        passages = len({facts[i].passage for i in kept})
        figures[maker] = {"n": len(kept), "passages": passages, "conditions": told, **found}
        report += f"\n## {maker}: {len(kept)} questions on {passages} passages\n\n"
        report += table(told, ["condition", "f1", "interval", "contains", *(s for s in sets if s != "all")]) + "\n\n"
        report += _told(found) + "\n"
    best = figures[made_by[0]].get("all", {})
    figures |= {key: best.get(key) for name in DERIVED for key in (name, f"{name}_interval")}
    figures |= {
        "combined_strength": args.combined_strength,
        "recipes": [r.to_dict() for r in recipes],
        "model": lm.name,
        "writer": None if writer is None else writer.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "machine": machine(),
    }
    note(report)
    finish("knowledge_fidelity", figures, args.out, report)


class _Scored:
    """The scored answers of one condition."""

    def __init__(self, facts: Sequence[Fact], given: Sequence[str]) -> None:
        self.f1 = [100 * f1(g, f.answers) for g, f in zip(given, facts, strict=True)]
        self.contains = [100 * contains(g, f.answers) for g, f in zip(given, facts, strict=True)]
        self.passages = [f.passage for f in facts]


def _row(name: str, scored: _Scored, sets: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    low, high = interval(scored.f1, groups=scored.passages)
    row: dict[str, Any] = {
        "condition": name,
        "n": len(scored.f1),
        "f1": mean(scored.f1),
        "interval": f"{low:.1f} to {high:.1f}",
        "low": low,
        "high": high,
        "contains": mean(scored.contains),
    }
    return row | {s: mean([scored.f1[i] for i in which]) for s, which in sets.items() if s != "all"}


def _derived(scored: Mapping[str, _Scored], maker: str, which: Sequence[int]) -> dict[str, Any]:
    def values(name: str) -> list[float]:
        return [scored[name].f1[i] for i in which]

    def paired(one: Sequence[float], other: Sequence[float]) -> list[float]:
        return [a - b for a, b in zip(one, other, strict=True)]

    own, other, both, unrelated = (values(f"{maker} {m}") for m in ("own", "other", "combined", "unrelated"))
    closed, context = values("closed"), values("context")
    room = mean(context) - mean(closed)
    passages = [scored["closed"].passages[i] for i in which]
    gained, added, lost = paired(own, other), paired(both, context), paired(context, unrelated)
    derived: dict[str, Any] = {}
    if "int4" in scored:
        changed = paired(values("int4"), own)
        derived = {"int4_minus_own": mean(changed), "int4_minus_own_interval": interval(changed, groups=passages)}
    return derived | {
        "n": len(which),
        "recovery": mean(gained) / room if room else float("nan"),
        "recovery_interval": [v / room if room else float("nan") for v in interval(gained, groups=passages)],
        "combined_minus_context": mean(added),
        "combined_minus_context_interval": interval(added, groups=passages),
        "unrelated_drop": mean(lost),
        "unrelated_drop_interval": interval(lost, groups=passages),
    }


def _told(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for data, values in found.items():
        row: dict[str, Any] = {"data": data, "n": values["n"]}
        for name in [n for n in DERIVED if n in values]:
            low, high = values[f"{name}_interval"]
            digits = 2 if name == "recovery" else 1
            row[name] = f"{values[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        rows.append(row)
    return table(rows, ["data", "n", *(n for n in DERIVED if any(n in row for row in rows))])


if __name__ == "__main__":
    main()
