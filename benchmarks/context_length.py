"""Quality and cost of answers as more documents are retrieved together with the one that holds the answer.

Reproduces the second experiment of the tutorial on dynamic and parametric RAG: a question, its passage, and 0, 4, 9 or
19 others, with the passage first, in the middle or last. The documents are in the prompt (`context`), in the weights
(`parametric`: the mean of their updates; `summed`: their sum, as in PRAG), or in both (`combined`); `translated` is
like `parametric`, with adapters from a translator. Measured are F1, prompt tokens, and seconds to the first token and
in total, for one question at a time and from an empty prefix cache. Distractors come from one pool of at most 100
passages.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.knowledge_fidelity import parametrizer
from benchmarks.parametric_runs import ANSWER_TOKENS, open_store, parametrize
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, by_passage, draw, load_facts
from llamaindex_prag.adapters.active_adapters import BESIDE_TEXT
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.prompts import clean_answer, prompt_ids
from llamaindex_prag.translator.translator import Translator
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import f1

Mode = Literal["context", "parametric", "summed", "combined", "translated"]
MODES: tuple[Mode, ...] = ("context", "parametric", "summed", "combined", "translated")
WITHOUT_TEXT = ("parametric", "summed", "translated")
TRAINED = ("parametric", "summed", "combined")
PLACES = ("start", "middle", "end")
POOL = 100


@dataclass(frozen=True, slots=True)
class Case:
    """A question among documents."""

    fact: Fact
    mode: Mode
    documents: tuple[str, ...]
    place: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, ask, and report."""
    options = parser("Answers as the number of retrieved documents grows.", dtype="bfloat16")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument("--questions", type=int, default=30, help="questions, each on a different passage")
    options.add_argument("--pool", type=int, default=POOL, help="total passages, including those of the questions")
    options.add_argument("--counts", default="1,5,10,20", help="numbers of documents per question")
    options.add_argument(
        "--timed",
        type=int,
        default=0,
        help="report seconds of the first N questions only, if the others ran on a busy machine; 0: of all",
    )
    options.add_argument("--recipe", default="distill")
    options.add_argument("--combined-strength", type=float, default=BESIDE_TEXT)
    options.add_argument("--translator", help="a checkpoint of the recipe's form, for `translated`")
    options.add_argument(
        "--modes", nargs="+", choices=MODES, help="default: all; modes without trained adapters train nothing"
    )
    args = options.parse_args(arguments)
    counts = [int(c) for c in args.counts.split(",")]
    if not max(counts) <= args.pool <= POOL:
        raise ConfigurationError(f"--pool is {args.pool}; it must be at least {max(counts)} and at most {POOL}")
    deadline = Deadline(args.max_minutes)
    facts = draw(load_facts(args.data), passages=args.pool, per_passage=1, seed=args.seed)
    titles = {f.passage: f.title for f in facts}
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    with open_store(lm) as store:
        translator = Translator.load(args.translator, lm) if args.translator else None
        recipe = get_recipe(args.recipe)
        model = ParametricModel(lm, store, recipe=recipe, max_adapters=max(counts), translator=translator).attach()
        passages = [Passage(text, title) for text, title in titles.items()]
        modes = [m for m in args.modes or MODES if translator or m != "translated"]
        trained = any(m in TRAINED for m in modes)
        complete = parametrize(model, parametrizer, passages, deadline) if trained else True
        if model.translations is not None:
            model.translations.keep(passages, progress=True)
        pool = [p.text for p in passages if not trained or model.knows(p.text)]
        asked = [f for f in facts if f.passage in pool][: args.questions]
        records = Records("context_length")
        rows = []
        for case in cases(asked, pool, counts, modes, args.seed):
            about = _about(case, model, args.dtype, args.combined_strength)
            if records.get(key_of(about)) is None:
                if deadline.over:
                    complete = False
                    continue
                records.put(key_of(about), about, _measured(case, model, args.combined_strength))
                note(f"{case.mode}, {len(case.documents)} documents, {case.place}")
            rows.append((case, records.get(key_of(about))))
    _report(args, lm, rows, len(pool), complete=complete)


def cases(
    facts: Sequence[Fact], pool: Sequence[str], counts: Sequence[int], modes: Sequence[Mode], seed: int
) -> Iterator[Case]:
    """Yield every question under every condition, question by question, so that a stopped run is balanced."""
    for fact in facts:
        others = [p for p in pool if p != fact.passage]
        random.Random(f"{seed}/{fact.question}").shuffle(others)
        for count in counts:
            drawn = others[: count - 1]
            for place in PLACES if count > 1 else PLACES[:1]:
                at = {"start": 0, "middle": len(drawn) // 2, "end": len(drawn)}[place]
                documents = (*drawn[:at], fact.passage, *drawn[at:])
                for mode in modes:
                    # Neither the mean of the updates nor their sum has an order.
                    if mode not in WITHOUT_TEXT or place == PLACES[0]:
                        yield Case(fact, mode, documents, place)


def _measured(case: Case, model: ParametricModel, beside: float) -> dict[str, Any]:
    engine, tokenizer = model.lm.engine, model.lm.tokenizer
    engine.prefixes.clear()
    started = time.perf_counter()
    texts = [] if case.mode in WITHOUT_TEXT else case.documents
    selection = None
    if case.mode != "context":
        key = model.translations.translator.key if case.mode == "translated" and model.translations else model.key
        selection = model.select(
            [key(d) for d in case.documents],
            strength=beside if texts else 1.0,
            merge="sum" if case.mode == "summed" else "mean",
        )
    ids = prompt_ids(tokenizer, case.fact.question, texts)
    first, text = 0.0, ""
    with engine.stream(Request(ids, ANSWER_TOKENS, adapters=selection)) as stream:
        for step in stream:
            first = first or time.perf_counter() - started
            text += step.text
    seconds = time.perf_counter() - started
    answer = clean_answer(text)
    return {
        "answer": answer,
        "f1": f1(answer, case.fact.answers),
        "prompt_tokens": len(ids),
        "first_seconds": first,
        "seconds": seconds,
    }


def _about(case: Case, model: ParametricModel, dtype: str, beside: float) -> dict[str, Any]:
    recipes = {"context": "", "translated": model.translator_key}
    return {
        "model": model.lm.fingerprint,
        "dtype": dtype,
        "question": case.fact.question,
        "documents": case.documents,
        "mode": case.mode,
        "recipe": recipes.get(case.mode, model.recipe.key),
        "strength": beside if case.mode == "combined" else 1.0,
        "prompt": prompt_ids(model.lm.tokenizer, "?"),
    }


def _report(args: Any, lm: CausalLM, rows: Sequence[tuple[Case, Any]], pool: int, *, complete: bool) -> None:
    told = []
    clocked = set(list(dict.fromkeys(c.fact.question for c, _ in rows))[: args.timed or None])
    for mode in MODES:
        for count in sorted({len(c.documents) for c, _ in rows}):
            for place in (*PLACES, "all"):
                found = [
                    (c, r)
                    for c, r in rows
                    if c.mode == mode and len(c.documents) == count and place in (c.place, "all")
                ]
                if not found or (place != "all" and (count == 1 or mode in WITHOUT_TEXT)):
                    continue
                values = [100 * r["f1"] for _, r in found]
                alone = [r for c, r in found if c.fact.question in clocked]
                low, high = interval(values, groups=[c.fact.passage for c, _ in found])
                told.append(
                    {
                        "mode": mode,
                        "documents": count,
                        "gold": place,
                        "n": len(found),
                        "f1": mean(values),
                        "low": low,
                        "high": high,
                        "interval": f"{low:.1f} to {high:.1f}",
                        "prompt tokens": mean([r["prompt_tokens"] for _, r in found]),
                        "s to first token": mean([r["first_seconds"] for r in alone]),
                        "s": mean([r["seconds"] for r in alone]),
                    }
                )
    questions = len({c.fact.question for c, _ in rows})
    report = f"# Answers as the number of documents grows: {lm.name}, {args.dtype}\n\n"
    report += f"{questions} questions of {args.data.name}, each on another passage; distractors from a pool of {pool}; "
    report += f"recipe {args.recipe}, seed {args.seed}. F1 in percent, 95 % intervals by bootstrap over questions; "
    report += f"seconds of {len(clocked)} questions, each asked alone.\n\n"
    columns = ["mode", "documents", "gold", "n", "f1", "interval", "prompt tokens", "s to first token", "s"]
    report += table(told, columns)
    note(report)
    figures = {
        "complete": complete,
        "questions": questions,
        "timed": len(clocked),
        "pool": pool,
        "rows": told,
        "model": lm.name,
        "dtype": args.dtype,
        "data": args.data.name,
        "recipe": get_recipe(args.recipe).to_dict(),
        "combined_strength": args.combined_strength,
        "seed": args.seed,
        "machine": machine(),
        "passages": len(by_passage([c.fact for c, _ in rows])),
    }
    finish("context_length", figures, args.out, report)


if __name__ == "__main__":
    main()
