"""What comes back out of the weights: facts of one passage, asked for without it.

Single questions that one passage answers (SQuAD, MuSiQue's steps, the project's own corpus), each asked

- closed book, and with the passage in the prompt;
- with the passage's own adapter (`prag`, `distill`) and nothing in the prompt, and with both (`combined`);
- with another passage's adapter, and with a document-free warm-up adapter: what these gain is the form of an answer.

`recovery` = (own - other passage's) / (in context - closed book), in F1. `unrelated_drop`: what questions lose, in
context, when another passage's adapter is active. Intervals by bootstrap over passages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.parametric_runs import Answers, Asked, open_store, parametrize, recipe_model
from benchmarks.plots import fidelity_bars
from benchmarks.scoring import contains, f1, interval, mean
from benchmarks.single_hop import Fact, by_passage, draw, load_facts
from llamaindex_prag.augment import Augmenter
from llamaindex_prag.parametric import ParametricModel
from llamaindex_prag.parametrize import Parametrizer, Passage
from llamaindex_prag.recipe import Recipe, get_recipe
from llamaindex_prag.training.warm_up import warm_up
from rag_backbone.causal_lm import CausalLM

MODES = ("closed", "context", "own", "other", "combined", "unrelated")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, ask, and report."""
    options = parser("Facts out of the weights.", dtype="bfloat16")
    options.add_argument("--squad", type=Path, help="a file as SQuAD 1.1")
    options.add_argument("--squad-passages", type=int, default=56)
    options.add_argument("--squad-questions", type=int, default=5, help="of a passage at most")
    options.add_argument("--musique", type=Path, help="a file as MuSiQue-Ans")
    options.add_argument("--musique-steps", type=int, default=60)
    options.add_argument("--own", type=Path, default=Path("examples/data"), help="a folder with corpus and questions")
    options.add_argument("--own-passages", type=int, default=20)
    options.add_argument("--recipes", default="prag,distill")
    options.add_argument("--warm-up", type=Path, help="a train file as MuSiQue-Ans, for the warm-up control")
    options.add_argument("--warm-up-pairs", type=int, default=120)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    facts = _facts(args)
    note(f"{len(facts)} questions on {len(by_passage(facts))} passages")
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    answers = Answers(lm, args.dtype)
    store = open_store(lm)
    conditions: dict[str, list[Asked]] = {
        "closed": [Asked(f.question) for f in facts],
        "context": [Asked(f.question, (f.passage,)) for f in facts],
    }
    complete = answers.ask([a for asked in conditions.values() for a in asked], None, deadline)
    recipes = [get_recipe(name) for name in args.recipes.split(",")]
    if args.warm_up:
        conditions["warm-up"], done = _warmed_up(args, lm, store, recipes[-1], facts, answers, deadline)
        complete &= done
    for recipe in recipes:
        model = recipe_model(lm, store, recipe)
        passages = [Passage(f.passage, f.title) for f in facts]
        complete &= parametrize(model, _maker, passages, deadline)
        found = _conditions(recipe, model, facts)
        complete &= answers.ask([a for asked in found.values() for a in asked if _ready(a, model)], model, deadline)
        conditions |= found
    store.close()
    _report(args, lm, recipes, facts, conditions, answers, complete=complete)


def _facts(args: Any) -> list[Fact]:
    found: list[Fact] = []
    if args.squad:
        found += draw(load_facts(args.squad), passages=args.squad_passages, per_passage=args.squad_questions,
                      seed=args.seed)  # fmt: skip
    if args.musique:
        found += draw(load_facts(args.musique), passages=args.musique_steps, per_passage=1, seed=args.seed)
    if args.own_passages:
        found += draw(load_facts(args.own), passages=args.own_passages, per_passage=9, seed=args.seed)
    return found


def _maker(model: ParametricModel) -> Parametrizer:
    recipe = model.recipe
    augmenter = Augmenter(
        model.lm, questions=recipe.questions, rewrite=recipe.objective == "next_token", cache=model.store  # type: ignore[arg-type]
    )  # fmt: skip
    return Parametrizer(model, augmenter=augmenter)


def _warmed_up(
    args: Any, lm: CausalLM, store: Any, recipe: Recipe, facts: Sequence[Fact], answers: Answers, deadline: Deadline
) -> tuple[list[Asked], bool]:
    pairs = [(f.question, f.answers[0]) for f in load_facts(args.warm_up)][: args.warm_up_pairs]
    key = warm_up(lm, store, recipe, pairs)
    asked = [Asked(f.question, adapters=(key,)) for f in facts]
    model = recipe_model(lm, store, recipe)
    return asked, answers.ask(asked, model, deadline)


def _conditions(recipe: Recipe, model: ParametricModel, facts: Sequence[Fact]) -> dict[str, list[Asked]]:
    passages = list(by_passage(facts))
    # The next passage of the same file, so that controls are of the same kind.
    of_file: dict[str, list[str]] = {}
    for fact in facts:
        kept = of_file.setdefault(fact.data, [])
        kept += [fact.passage] if fact.passage not in kept else []
    others = {p: kept[(i + len(kept) // 2) % len(kept)] for kept in of_file.values() for i, p in enumerate(kept)}
    assert len(others) == len(passages)
    own = {p: (model.key(p),) for p in passages}
    return {
        f"{recipe.name} own": [Asked(f.question, adapters=own[f.passage]) for f in facts],
        f"{recipe.name} other": [Asked(f.question, adapters=own[others[f.passage]]) for f in facts],
        f"{recipe.name} combined": [Asked(f.question, (f.passage,), own[f.passage]) for f in facts],
        f"{recipe.name} unrelated": [Asked(f.question, (f.passage,), own[others[f.passage]]) for f in facts],
    }


def _ready(asked: Asked, model: ParametricModel) -> bool:
    return all(key in model.store for key in asked.adapters)


@dataclass(frozen=True, slots=True)
class _Scores:
    f1: list[float]
    contains: list[float]


def _report(
    args: Any, lm: CausalLM, recipes: Sequence[Recipe], facts: Sequence[Fact],
    conditions: Mapping[str, Sequence[Asked]], answers: Answers, *, complete: bool,
) -> None:  # fmt: skip
    given = {name: [answers.known(a) for a in asked] for name, asked in conditions.items()}
    usable = [i for i in range(len(facts)) if all(g[i] is not None for g in given.values())]
    kept = [facts[i] for i in usable]
    scores = {
        name: _Scores(
            [f1(str(found[i]), facts[i].answers) for i in usable],
            [contains(str(found[i]), facts[i].answers) for i in usable],
        )
        for name, found in given.items()
    }
    sets = {"all": list(range(len(kept)))}
    for i, fact in enumerate(kept):
        sets.setdefault(fact.data, []).append(i)
    rows = [_row(name, scores[name], kept, sets) for name in scores]
    figures: dict[str, Any] = {"complete": complete, "n": len(kept), "passages": len(by_passage(kept))}
    for recipe in recipes:
        figures[recipe.name] = {
            data: _derived(scores, recipe.name, [kept[i].passage for i in which], which) for data, which in sets.items()
        }
    best = figures[recipes[-1].name]["all"]
    figures |= {name: best[name] for name in ("recovery", "combined_minus_context", "unrelated_drop")}
    figures |= {
        "conditions": rows, "recipes": [r.to_dict() for r in recipes], "model": lm.name, "dtype": args.dtype,
        "seed": args.seed, "machine": machine(),
    }  # fmt: skip
    report = f"# Facts out of the weights: {lm.name}, {args.dtype}\n\n"
    report += f"{len(kept)} questions on {figures['passages']} passages, seed {args.seed}. F1 in percent, 95 % "
    report += "intervals by bootstrap over passages.\n\n"
    report += table(rows, ["condition", "f1", "interval", "contains", *(s for s in sets if s != "all")]) + "\n\n"
    report += _told(figures, recipes, sets)
    note(report)
    if args.out:
        fidelity_bars(rows, args.out / "knowledge_fidelity.png", n=len(kept))
    finish("knowledge_fidelity", figures, args.out, report)


def _row(name: str, scores: _Scores, facts: Sequence[Fact], sets: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    low, high = interval(scores.f1, groups=[f.passage for f in facts])
    row: dict[str, Any] = {
        "condition": name, "f1": 100 * mean(scores.f1), "interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "low": 100 * low, "high": 100 * high, "contains": 100 * mean(scores.contains),
    }  # fmt: skip
    return row | {s: 100 * mean([scores.f1[i] for i in which]) for s, which in sets.items() if s != "all"}


def _derived(
    scores: Mapping[str, _Scores], recipe: str, passages: Sequence[str], which: Sequence[int]
) -> dict[str, Any]:
    def values(name: str) -> list[float]:
        return [100 * scores[name].f1[i] for i in which]

    closed, context = values("closed"), values("context")
    own, other, both, unrelated = (values(f"{recipe} {m}") for m in ("own", "other", "combined", "unrelated"))
    room = mean(context) - mean(closed)
    gained = [a - b for a, b in zip(own, other, strict=True)]
    added = [a - b for a, b in zip(both, context, strict=True)]
    lost = [a - b for a, b in zip(context, unrelated, strict=True)]
    return {
        "n": len(which),
        "recovery": mean(gained) / room if room else float("nan"),
        "recovery_interval": [v / room if room else float("nan") for v in interval(gained, groups=passages)],
        "combined_minus_context": mean(added),
        "combined_minus_context_interval": interval(added, groups=passages),
        "unrelated_drop": mean(lost),
        "unrelated_drop_interval": interval(lost, groups=passages),
    }


def _told(figures: Mapping[str, Any], recipes: Sequence[Recipe], sets: Mapping[str, Any]) -> str:
    rows = []
    for recipe in recipes:
        for data in sets:
            found = figures[recipe.name][data]
            row: dict[str, Any] = {"recipe": recipe.name, "data": data, "n": found["n"]}
            for name in ("recovery", "combined_minus_context", "unrelated_drop"):
                low, high = found[f"{name}_interval"]
                digits = 2 if name == "recovery" else 1
                row[name] = f"{found[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            rows.append(row)
    return table(rows, ["recipe", "data", "n", "recovery", "combined_minus_context", "unrelated_drop"])


if __name__ == "__main__":
    main()
