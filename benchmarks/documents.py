"""Measure how questions are answered when several passages are retrieved, and one of their adapters is to act.

Each question has candidates from a pool of passages about two subjects, the best k by BM25. Every candidate's adapter
answers alone, once; a way of choosing is then a choice among these answers:

    single      the right passage's adapter, if the right passage is a candidate: what routing can reach at most
    bm25        the passage with the best BM25 score in the whole pool (`route="retrieval"` with a BM25 index)
    minilm      the passage whose MiniLM embedding is the most similar (`route="retrieval"` with a dense index)
    lexical     standardised MiniLM and BM25 scores of the candidates (`route="lexical"` with a dense index); no adapter
                acts, and the answer is the one of closed book, if no candidate names what is asked for
    texts       the same, but where no adapter acts, the candidates' texts are in the prompt, the best one first: what
                the postprocessor and the graph do (`--texts`)
    always      the same, but an adapter always acts (`LexicalRouter(bound=0)`)
    unsure      the same, unless the base model is sure of its own answer, which then counts (`route="unsure"`)
    ask         the adapter whose answer gains most over the base model (`route="ask"`)
    lexical+ask the sum of the lexical scores and the standardised gains
    mean        no choice: the mean of all updates
    shared_once no choice: the sum of all updates, with the recipe's start added once; only if `--change start=...`
                names the adapter that the documents start from
    mixture     no choice: the mean of the next-token distributions, weighed by the softmax of the BM25 scores (REPLUG)
    product     no choice: their weighted geometric mean

`context` has all candidates in the prompt, the right one first, in the middle or last. `absent`: the same candidates
without the right passage, in the prompt or as adapters, against closed book. `another subject's adapters`: those of
passages of the other subject, drawn by the seed, which should change nothing. Intervals are by bootstrap over passages.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.knowledge_fidelity import parametrizer
from benchmarks.parametric_runs import ANSWER_TOKENS, Answers, Asked, open_store, parametrize
from benchmarks.retrieved_cases import PLACES, WAYS, Case, placed, pooled, strangers
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean, ratio
from benchmarks.single_hop import Fact, load_facts
from llamaindex_prag.adapters.active_adapters import Merge
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.adapters.recipe_options import changes_of
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.placement.ask_router import Answer, AskedAdapters
from llamaindex_prag.placement.lexical_router import bm25_scores
from llamaindex_prag.placement.unsure_router import BOUND, own_answer
from llamaindex_prag.prompts import prompt_ids
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.minilm import MiniLM
from rag_backbone.metrics import f1

TOGETHER: dict[str, tuple[Merge, Ensemble | None]] = {
    "mean": ("mean", None),
    "shared_once": ("shared_once", None),
    "mixture": ("mean", "mixture"),
    "product": ("mean", "product"),
}
"""Ways in which all candidates answer together: how updates are merged, or distributions are mixed."""
ABSENT = "right passage absent"
STRANGER = "another subject's adapters, mean"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, ask, and report."""
    options = parser("Answers from the weights when several passages are retrieved.")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 file")
    options.add_argument("--pool", type=int, default=40, help="passages, of the first two subjects with enough of them")
    options.add_argument("--questions", type=int, default=100, help="maximum questions, spread over the passages")
    options.add_argument("--counts", default="1,3,5,10,20", help="numbers of candidates")
    options.add_argument("--merged", type=int, default=0, help="questions also asked with all adapters together")
    options.add_argument("--context", type=int, default=0, help="questions that are also asked with the texts")
    options.add_argument("--middle", type=int, default=0, help="questions asked with the right text in the middle")
    options.add_argument("--texts", default="", help="numbers of candidates whose texts are read if no adapter acts")
    options.add_argument("--timed", type=int, default=5, help="questions whose time to the first token is measured")
    options.add_argument("--recipe", default="distill")
    options.add_argument("--change", action="append", default=[], metavar="NAME=VALUE", help="changes in the recipe")
    options.add_argument("--default", choices=WAYS, default="lexical", help="the way whose ratios are reported")
    args = options.parse_args(arguments)
    counts = [int(count) for count in args.counts.split(",")]
    deadline = Deadline(args.max_minutes)
    facts = pooled(load_facts(args.data), args.pool, args.questions)
    pool = list(dict.fromkeys(f.passage for f in facts))
    note(f"{len(facts)} questions on {len(pool)} passages")
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    with open_store(lm) as store:
        recipe = get_recipe(args.recipe).changed(**changes_of(args.change))
        model = ParametricModel(lm, store, recipe=recipe, max_adapters=max(counts) + 1).attach()  # with the shared part
        titles = {f.passage: f.title for f in facts}
        complete = parametrize(model, parametrizer, [Passage(p, titles[p]) for p in pool], deadline)
        ready = [p for p in pool if model.knows(p)]
        asked, done = _cases(model, args.dtype, [f for f in facts if f.passage in ready], ready, max(counts), deadline)
        complete &= done
        answers = Answers(lm, args.dtype)
        extra, done = _extra(model, answers, asked, counts, args, deadline)
        complete &= done
        told = {c.without("lexical"): value for c, value in extra.get("closed", ())}
        read = [int(count) for count in args.texts.split(",") if count]
        parts = [c for case in asked for k in read for c in (case.best(k), case.absent(k))]
        refused = [c for c in parts if c.chosen("texts") is None]
        complete &= answers.ask([c.without("texts") for c in refused], model, deadline)
        for c in refused:
            if (said := answers.known(c.without("texts"))) is not None:
                told[c.without("texts")] = f1(said, c.fact.answers)
        timed = _timed(model, asked[: args.timed], counts) if not deadline.over else {}
    _report(args, lm, recipe.to_dict(), asked, counts, extra, told, timed, len(ready), complete=complete)


def _cases(
    model: ParametricModel, dtype: str, facts: Sequence[Fact], pool: Sequence[str], most: int, deadline: Deadline
) -> tuple[list[Case], bool]:
    """Ask the adapter of each candidate; answers are kept, so that a stopped run continues."""
    records, asked = Records("documents"), AskedAdapters(model, tokens=ANSWER_TOKENS)
    minilm = MiniLM()
    vectors = np.array(minilm.embed(pool))
    cases: list[Case] = []
    for fact in facts:
        scores = bm25_scores(fact.question, pool)
        # One more than the largest number, so that as many are left without the right passage.
        best = sorted(range(len(pool)), key=lambda i: -scores[i])[: most + 1]
        keys = [model.key(pool[i]) for i in best]
        about = {
            "model": model.lm.fingerprint,
            "dtype": dtype,
            "prompt": prompt_ids(model.lm.tokenizer, fact.question),
            "adapters": [key.digest for key in keys],
            "tokens": ANSWER_TOKENS,
        }
        found = records.get(key_of(about))
        if found is None:
            if deadline.over:
                return cases, False
            said = asked.answers(fact.question, keys)
            found = {"answers": [[answer.text, answer.gain] for answer in said]}
            records.put(key_of(about), about, found)
            note(f"{len(cases) + 1} of {len(facts)} questions asked")
        alike = vectors[best] @ np.array(minilm.embed([fact.question])[0])
        cases.append(
            Case(
                fact,
                tuple(pool[i] for i in best),
                tuple(float(scores[i]) for i in best),
                tuple(map(float, alike)),
                tuple(Answer(text, gain) for text, gain in found["answers"]),
                own_answer(model, fact.question, BOUND) is not None,
            )
        )
    return cases, True


def _extra(
    model: ParametricModel,
    answers: Answers,
    cases: Sequence[Case],
    counts: Sequence[int],
    args: Any,
    deadline: Deadline,
) -> tuple[dict[str, list[tuple[Case, float]]], bool]:
    """Ask closed book, with merged adapters, and with the texts in the prompt; return F1 by condition."""
    conditions: dict[str, list[tuple[Case, Asked]]] = {"closed": [(c, Asked(c.fact.question)) for c in cases]}
    for k in counts:
        found = [case.best(k) for case in cases if case.best(k).right is not None]
        if k > 1:
            for way in (w for w in TOGETHER if w != "shared_once" or model.recipe.start):
                conditions[f"{way} {k}"] = [(c, together(model, c, way)) for c in found[: args.merged]]
        for place in PLACES if k > 1 else PLACES[:1]:
            conditions[f"context {place} {k}"] = [
                (c, Asked(c.fact.question, placed(c, place)))
                for c in found[: max(args.context, args.middle if place == "middle" else 0)]
            ]
        conditions[f"{STRANGER} {k}"] = [
            (c, Asked(c.fact.question, adapters=tuple(map(model.key, others))))
            for c, others in strangers(cases, k, args.seed)
        ]
        absent = [case.absent(k) for case in cases][: args.context]
        conditions[f"context, {ABSENT} {k}"] = [(c, Asked(c.fact.question, c.passages)) for c in absent]
    complete = True
    scored: dict[str, list[tuple[Case, float]]] = {}
    for name, asked in conditions.items():
        if asked:
            complete &= answers.ask([a for _, a in asked], model, deadline)
            known = [(case, answers.known(a)) for case, a in asked]
            scored[name] = [(case, f1(said, case.fact.answers)) for case, said in known if said is not None]
    return scored, complete


def together(model: ParametricModel, case: Case, way: str) -> Asked:
    """Return the question with the adapters of all candidates, by one of `TOGETHER`."""
    merge, ensemble = TOGETHER[way]
    keys = tuple(model.key(p) for p in case.passages)
    scores = () if ensemble is None else case.bm25
    return Asked(case.fact.question, adapters=keys, merge=merge, ensemble=ensemble, scores=scores)


def _timed(model: ParametricModel, cases: Sequence[Case], counts: Sequence[int]) -> dict[str, list[float]]:
    """Measure the seconds to the first token, from an empty prefix cache, of one question at a time."""
    found: dict[str, list[float]] = {}
    for case in cases:
        for k in counts:
            for way in ("context", "lexical", "ask"):
                model.lm.engine.prefixes.clear()
                model.lm.engine.run(model.bank.clear)  # reading the adapters from the store counts
                started = time.perf_counter()
                _begin(model, case.best(k), way)
                found.setdefault(f"{way} {k}", []).append(time.perf_counter() - started)
    return found


def _begin(model: ParametricModel, case: Case, way: str) -> None:
    """Generate the first token of the answer; `ask` generates every adapter's whole answer."""
    if way == "ask":
        AskedAdapters(model).answers(case.fact.question, [model.key(p) for p in case.passages])
        return
    ids = prompt_ids(model.lm.tokenizer, case.fact.question, case.passages if way == "context" else ())
    at = None if way == "context" else case.chosen(way)
    chosen = None if at is None else model.select([model.key(case.passages[at])])
    model.lm.engine.generate(Request(ids, 1, adapters=chosen))


def _row(way: str, k: int, values: Sequence[float], cases: Sequence[Case], **more: Any) -> dict[str, Any]:
    scores = [100 * v for v in values]
    low, high = interval(scores, groups=[c.fact.passage for c in cases])
    shown = f"{low:.1f} to {high:.1f}"
    return {
        "way": way,
        "k": k,
        "n": len(values),
        "f1": mean(scores),
        "low": low,
        "high": high,
        "interval": shown,
        **more,
    }


def _lost(name: str, scored: Iterable[tuple[Case, float]], closed: Mapping[str, float]) -> dict[str, Any]:
    """Return how much more F1 than closed book, with its interval, where the right passage is absent."""
    more = [(case.fact.passage, 100 * (value - closed[case.fact.question])) for case, value in scored]
    if not more:
        return {}
    passages, values = zip(*more, strict=True)
    name = f"absent_minus_closed_{name}"
    return {name: mean(values), f"{name}_interval": interval(values, groups=passages)}


def _report(
    args: Any,
    lm: CausalLM,
    recipe: Mapping[str, Any],
    cases: Sequence[Case],
    counts: Sequence[int],
    extra: Mapping[str, Sequence[tuple[Case, float]]],
    told: Mapping[Asked, float],
    timed: Mapping[str, Sequence[float]],
    pool: int,
    *,
    complete: bool,
) -> None:
    closed = {case.fact.question: value for case, value in extra.get("closed", ())}
    cases = [case for case in cases if case.fact.question in closed]
    rows, figures = [], dict[str, Any]()
    rows.append(_row("closed book", 0, [closed[c.fact.question] for c in cases], cases))
    read = {int(count) for count in args.texts.split(",") if count}
    for k in counts:
        found = [case.best(k) for case in cases if case.best(k).right is not None]
        groups = [c.fact.passage for c in found]
        single = [f1(c.answers[c.right or 0].text, c.fact.answers) for c in found]
        rows.append(_row("single", k, single, found, right=1.0))
        for way in (w for w in WAYS if w != "texts" or k in read):
            values = [c.f1(way, told) for c in found]
            right = mean([float(c.chosen(way) == c.right) for c in found])
            rows.append(_row(way, k, values, found, right=right))
            if way in (args.default, "always", "unsure", "texts"):
                name = f"k{k}" if way == args.default else f"{way}_k{k}"
                figures[f"ratio_{name}"], figures[f"ratio_{name}_interval"] = ratio(values, single, groups)
                figures[f"routed_right_{name}"] = right
        for name, scored in extra.items():
            if name.split()[-1] == str(k) and scored:
                rows.append(_row(name.rsplit(" ", 1)[0], k, [v for _, v in scored], [c for c, _ in scored]))
        absent = [case.absent(k) for case in cases]
        for way in dict.fromkeys(
            (args.default, "always", "unsure", "minilm", "ask", *(["texts"] if k in read else []))
        ):
            values = [c.f1(way, told) for c in absent]
            rows.append(_row(f"{way}, {ABSENT}", k, values, absent))
            if way in (args.default, "unsure", "texts"):
                name = f"k{k}" if way == args.default else f"{way}_k{k}"
                figures |= _lost(name, zip(absent, values, strict=True), closed)
        figures |= _lost(f"other_subject_k{k}", extra.get(f"{STRANGER} {k}", ()), closed)
        figures |= _lost(f"context_k{k}", extra.get(f"context, {ABSENT} {k}", ()), closed)
    seconds = {name: mean(values) for name, values in timed.items()}
    last = max(counts)
    for way in ("lexical", "ask"):
        if f"{way} {last}" in seconds:
            figures[f"first_token_ratio_{way}_k{last}"] = seconds[f"{way} {last}"] / seconds[f"context {last}"]
    report = f"# Several retrieved passages: {lm.name}, {args.dtype}\n\n"
    report += f"{len(cases)} questions of {args.data.name} on {pool} passages of two subjects, recipe {recipe['name']} "
    report += f"({', '.join(args.change) or 'as published'}), candidates by BM25. F1 in percent on the questions whose "
    report += "right passage is a candidate, 95 % intervals by bootstrap over passages; `right`: share of questions "
    report += "for which the right passage's adapter acts.\n\n"
    report += table(rows, ["way", "k", "n", "f1", "interval", "right"]) + "\n\n"
    if timed:
        report += "Seconds to the first token (`ask`: to all answers), mean of "
        report += f"{len(next(iter(timed.values())))} questions, empty prefix cache:\n\n"
        report += table([{"way and k": name, "s": value} for name, value in seconds.items()], ["way and k", "s"])
    note(report)
    figures |= {
        "complete": complete,
        "default": args.default,
        "questions": len(cases),
        "pool": pool,
        "rows": rows,
        "seconds": seconds,
        "recipe": recipe,
        "model": lm.name,
        "dtype": args.dtype,
        "data": args.data.name,
        "machine": machine(),
    }
    finish("documents", figures, args.out, report)


if __name__ == "__main__":
    main()
