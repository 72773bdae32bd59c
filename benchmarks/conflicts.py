"""Passages that contradict each other on one fact: is the conflict detected, and what does the model answer?

The data are pairs of a passage and a copy with one value swapped (`contradictions`), each with a separate adapter.

- Calibration: `conflict(i, j)` of `llamaindex_prag.guards.conflicts` on pairs that contradict each other about the
  question, compared with pairs that do not: the same two passages with another question, and passages of different
  documents. The bounds are chosen on one set of pairs (for nats the largest difference of hits and false alarms; for
  overlap the midpoint between versions of a passage and different passages) and evaluated on another. `claims` are the
  nats regardless of overlap.
- Policies: the answers under `mean`, `score-weighted` (the true passage has twice the score), `latest` (the altered
  passage is the later one) and `context` (in an order drawn for each question), applied to all pairs, as if detection
  were perfect, and only to detected ones. A row counts answers with the passage's value, the altered passage's value,
  both or neither.
- Consistency: how often other wordings of a question get the same answer as the plain one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.contradictions import WORDINGS, Contradiction, contradictions
from benchmarks.knowledge_fidelity import parametrizer
from benchmarks.parametric_runs import Answers, Asked, open_store, parametrize, recipe_model
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean, roc, roc_area
from benchmarks.single_hop import draw, load_facts
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.guards.conflicts import BOUND, OVERLAP, ConflictMeter, overlap
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import contains, normalised_answer

POLICIES = ("mean", "score-weighted", "latest", "context")
MEASURES = {"conflict": "conflict", "claims": "nats", "overlap": "overlap"}
OUTCOMES = ("true", "false", "both", "neither")


@dataclass(frozen=True, slots=True)
class Case:
    """Two passages and a question on which they may contradict each other."""

    pair: Contradiction
    kind: str
    """`contradiction`, `other question` (on which the same two passages agree), or `other document`."""
    question: str
    passages: tuple[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure, and report."""
    options = parser("Passages that contradict each other.", dtype="bfloat16")
    options.add_argument("--calibrate", type=Path, default=Path("examples/data/ombrel"), help="data that set the bound")
    options.add_argument("--calibrate-pairs", type=int, default=12)
    options.add_argument("--data", type=Path, nargs="+", default=[Path("examples/data")], help="data to evaluate on")
    options.add_argument("--pairs", type=int, default=12, help="pairs from each of --data")
    options.add_argument("--passages", type=int, default=0, help="passages drawn from each of --data first; 0: all")
    options.add_argument("--recipe", default="distill")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    tuned = contradictions(load_facts(args.calibrate), count=args.calibrate_pairs, seed=args.seed)
    judged = [
        pair for path in args.data for pair in contradictions(_facts(path, args), count=args.pairs, seed=args.seed)
    ]
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    with open_store(lm) as store:
        model = recipe_model(lm, store, get_recipe(args.recipe), max_adapters=2)
        passages = [Passage(t, p.fact.title) for p in (*tuned, *judged) for t in (p.fact.passage, p.altered)]
        note(f"{len(tuned)} pairs to calibrate, {len(judged)} to evaluate, {len(dict.fromkeys(passages))} passages")
        complete = parametrize(model, parametrizer, passages, deadline)
        measured = _Measured(model, args.dtype)
        sets = [measured.all(_cases(_ready(pairs, model)), deadline) for pairs in (tuned, judged)]
        least = _least_overlap(sets[0])
        for _, record in (pair for found in sets for pair in found):
            record["conflict"] = record["nats"] if record["overlap"] >= least else 0.0
        bound = _best_bound(sets[0])
        answers = Answers(lm, args.dtype)
        policies, done = _policies(sets[1], bound, model, answers, deadline)
    _report(args, lm, sets, bound, least, policies, complete=complete and done)


def _facts(path: Path, args: Any) -> Any:
    facts = load_facts(path)
    return draw(facts, passages=args.passages, per_passage=99, seed=args.seed) if args.passages else facts


def _ready(pairs: Sequence[Contradiction], model: ParametricModel) -> list[Contradiction]:
    return [p for p in pairs if model.knows(p.fact.passage) and model.knows(p.altered)]


def _cases(pairs: Sequence[Contradiction]) -> list[Case]:
    found = []
    for i, pair in enumerate(pairs):
        both = (pair.fact.passage, pair.altered)
        found.append(Case(pair, "contradiction", pair.fact.question, both))
        if pair.agreed:
            found.append(Case(pair, "other question", pair.agreed.question, both))
        other = pairs[(i + 1) % len(pairs)].fact.passage
        if other != pair.fact.passage:
            found.append(Case(pair, "other document", pair.fact.question, (pair.fact.passage, other)))
    return found


class _Measured:
    """The conflict meter's measurements of cases, kept on disk."""

    def __init__(self, model: ParametricModel, dtype: str) -> None:
        self._model = model
        self._dtype = dtype
        self._meter = ConflictMeter(model, least_overlap=None)
        self._records = Records("conflicts")

    def all(self, cases: Sequence[Case], deadline: Deadline) -> list[tuple[Case, dict[str, Any]]]:
        found = []
        for case in cases:
            keys = [self._model.key(p) for p in case.passages]
            about = {
                "model": self._model.lm.fingerprint,
                "dtype": self._dtype,
                "question": case.question,
                "adapters": [key.digest for key in keys],
            }
            if self._records.get(key_of(about)) is None and not deadline.over:
                conflicts = self._meter.measure(case.question, keys)
                nats, answers = float(conflicts.matrix[0, 1]), list(conflicts.answers)
                told = {"nats": nats, "answers": answers, "overlap": self._overlap(keys)}
                self._records.put(key_of(about), about, told)
            if (record := self._records.get(key_of(about))) is not None:
                found.append((case, dict(record)))
        return found

    def _overlap(self, keys: Sequence[Any]) -> float:
        return float(overlap(self._model.layout, list(self._model.bank.values(keys)))[0, 1])


def _best_bound(found: Sequence[tuple[Case, dict[str, Any]]]) -> float:
    """Return the bound with the largest difference of hits and false alarms, midway to the next lower score."""
    scores, labels = _labelled(found, "conflict")
    if len(set(labels)) < 2:
        return BOUND
    curve = roc(scores, labels)
    threshold = max(curve, key=lambda point: point[1] - point[0])[2]
    lower = max((s for s in scores if s < threshold), default=0.0)
    return (threshold + lower) / 2


def _least_overlap(found: Sequence[tuple[Case, dict[str, Any]]]) -> float:
    """Return the midpoint between versions of a passage and different passages, or the mean of all if they overlap."""
    one = [r["overlap"] for c, r in found if c.kind != "other document"]
    different = [r["overlap"] for c, r in found if c.kind == "other document"]
    if not one or not different:
        return OVERLAP
    return (min(one) + max(different)) / 2 if min(one) > max(different) else mean([*one, *different])


def _labelled(found: Sequence[tuple[Case, dict[str, Any]]], measure: str) -> tuple[list[float], list[bool]]:
    return [r[measure] for _, r in found], [c.kind == "contradiction" for c, _ in found]


def _policies(
    found: Sequence[tuple[Case, dict[str, Any]]],
    bound: float,
    model: ParametricModel,
    answers: Answers,
    deadline: Deadline,
) -> tuple[list[dict[str, Any]], bool]:
    cases = [(c, r["conflict"] > bound) for c, r in found if c.kind == "contradiction"]
    asked = {
        policy: {case: [_asked(policy, case, wording, model) for wording in WORDINGS] for case, _ in cases}
        for policy in (*POLICIES, "true passage alone", "altered passage alone")
    }
    complete = answers.ask(
        [a for by_case in asked.values() for each in by_case.values() for a in each], model, deadline
    )
    rows = []
    for policy, by_case in asked.items():
        rows.append(_row(policy, [(c, by_case[c]) for c, _ in cases], answers))
        if policy in POLICIES[1:]:
            applied = [(c, (by_case if noticed else asked["mean"])[c]) for c, noticed in cases]
            rows.append(_row(f"{policy}, where noticed", applied, answers))
    return rows, complete


def _asked(policy: str, case: Case, wording: str, model: ParametricModel) -> Asked:
    question = wording.format(case.question)
    true, false = (model.key(p) for p in case.passages)
    if policy == "context":
        order = random.Random(case.question).sample((0, 1), 2)
        return Asked(question, tuple(case.passages[i] for i in order))
    if policy in ("latest", "altered passage alone"):
        return Asked(question, adapters=(false,))
    if policy.startswith("true"):
        return Asked(question, adapters=(true,))
    return Asked(question, adapters=(true, false), scores=(2.0, 1.0) if policy == "score-weighted" else ())


def _row(policy: str, cases: Sequence[tuple[Case, Sequence[Asked]]], answers: Answers) -> dict[str, Any]:
    outcomes, same, groups = [], [], []
    for case, asked in cases:
        told = [answers.known(a) for a in asked]
        if any(t is None for t in told):
            continue
        plain, *others = [t for t in told if t is not None]
        outcomes += [outcome(t, case.pair) for t in (plain, *others)]
        groups += [case.pair.fact.passage] * len(told)
        same += [float(normalised_answer(t) == normalised_answer(plain)) for t in others]
    row: dict[str, Any] = {"policy": policy, "n": len(outcomes)}
    for name in OUTCOMES:
        row[name] = 100 * mean([float(o == name) for o in outcomes])
    for name in OUTCOMES[:2]:
        row[f"{name} interval"] = _told(interval([100.0 * (o == name) for o in outcomes], groups=groups))
    return row | {"consistent": 100 * mean(same)}


def outcome(answer: str, pair: Contradiction) -> str:
    """Return which value an answer contains: the passage's, the altered passage's, both or neither."""
    true, false = contains(answer, pair.fact.answers), contains(answer, (pair.false,))
    return "both" if true and false else "true" if true else "false" if false else "neither"


def _told(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _report(
    args: Any,
    lm: CausalLM,
    sets: Sequence[Sequence[tuple[Case, dict[str, Any]]]],
    bound: float,
    least: float,
    policies: Sequence[dict[str, Any]],
    *,
    complete: bool,
) -> None:
    rows = [
        _judged(f"{name}, {measure}", field, found, bound if field == "conflict" else None)
        for name, found in zip(("calibration", "judged"), sets, strict=True)
        for measure, field in MEASURES.items()
    ]
    told = {row["name"]: row for row in rows}
    report = f"# Passages that contradict each other: {lm.name}, {args.dtype}, {args.recipe}\n\n"
    report += f"Bounds {bound:.2f} nats and overlap {least:.2f}, chosen on {args.calibrate.name}; evaluated on "
    report += f"{' and '.join(p.stem for p in args.data)}. Seed {args.seed}.\n\n"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    report += table(rows, columns) + "\n\n"
    report += table(policies, list(policies[0])) + "\n"
    note(report)
    figures = {
        "complete": complete,
        "bound": bound,
        "least_overlap": least,
        "area": told["judged, conflict"]["area"],
        "hits": told["judged, conflict"]["hits"],
        "false_alarms": told["judged, conflict"]["false alarms"],
        "rows": rows,
        "policies": list(policies),
        "by_kind": _by_kind(sets[1]),
        "model": lm.name,
        "dtype": args.dtype,
        "recipe": get_recipe(args.recipe).to_dict(),
        "seed": args.seed,
        "machine": machine(),
    }
    finish("conflicts", figures, args.out, report)


def _judged(
    name: str, measure: str, found: Sequence[tuple[Case, dict[str, Any]]], bound: float | None
) -> dict[str, Any]:
    scores, labels = _labelled(found, measure)
    low, high = roc_area(scores, labels, groups=[c.pair.fact.passage for c, _ in found])[1:]
    row: dict[str, Any] = {
        "name": name,
        "contradictions": sum(labels),
        "others": len(labels) - sum(labels),
        "area": roc_area(scores, labels)[0],
        "area interval": f"{low:.2f} to {high:.2f}",
    }
    if bound is not None:
        row |= _rates(found, lambda r: r["conflict"] > bound, "hits", "false alarms")
        row |= _rates(found, _differ, "answers differ: hits", "answers differ: false alarms")
    return row


def _differ(record: dict[str, Any]) -> bool:
    """Return whether the two adapters give different answers, as the simplest measure of a conflict."""
    return normalised_answer(record["answers"][0]) != normalised_answer(record["answers"][1])


def _rates(
    found: Sequence[tuple[Case, dict[str, Any]]], says: Callable[[dict[str, Any]], bool], hits: str, alarms: str
) -> dict[str, float]:
    return {
        hits: 100 * mean([float(says(r)) for c, r in found if c.kind == "contradiction"]),
        alarms: 100 * mean([float(says(r)) for c, r in found if c.kind != "contradiction"]),
    }


def _by_kind(found: Sequence[tuple[Case, dict[str, Any]]]) -> dict[str, list[float]]:
    kinds = dict.fromkeys(c.kind for c, _ in found)
    return {kind: sorted(round(r["conflict"], 3) for c, r in found if c.kind == kind) for kind in kinds}


if __name__ == "__main__":
    main()
