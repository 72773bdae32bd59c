"""Trained and translated adapters compared with passages in the prompt, as the corpus grows.

Addresses the first check and the third open question of the tutorial paper. The corpus has 10, 100 or 1,000 passages:
first those that questions are asked about, then others. BM25 finds the k best passages of the whole corpus, and the
question is answered

- in `context`: with their texts in the prompt;
- `trained`: with the mean of their trained adapters, and nothing in the prompt;
- `translated`: the same with adapters from a translator.

Measured are the storage per document, the ingestion time (from a calibration run on this machine), the milliseconds of
a query (retrieval, activation, generation; each question alone and from an empty prefix cache), and F1. The calibration
also gives the crossover: seconds per query if the cost of ingestion is shared among the queries that a document
receives between two updates.

A size for which adapters are missing is left out of `trained`, unless `--train` allows training them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langchain_core.documents import Document

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.knowledge_fidelity import parametrizer
from benchmarks.parametric_runs import ANSWER_TOKENS, open_store, parametrize
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, by_passage, draw, load_facts
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.placement.costs import Costs, PlacementMode, measure_costs
from llamaindex_prag.prompts import clean_answer, prompt_ids
from llamaindex_prag.store.encoding import encode
from llamaindex_prag.translator.translator import Translator
from rag_backbone.documents import read_json_lines
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import f1

WAYS: tuple[PlacementMode, ...] = ("context", "trained", "translated")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus of a given size, with questions about its passages and a retriever."""

    passages: tuple[Passage, ...]
    facts: tuple[Fact, ...]
    retriever: BM25Retriever


def main(arguments: Sequence[str] | None = None) -> None:
    """Train missing adapters if allowed, ask, and report."""
    options = parser(
        "Trained adapters, translated adapters or passages in the prompt, as the corpus grows.", dtype="bfloat16"
    )
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument(
        "--others", type=Path, help="JSON lines with a `text` each: passages that no question is about"
    )
    options.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--questions", type=int, default=40, help="maximum questions per size")
    options.add_argument("--k", type=int, default=3)
    options.add_argument("--recipe", default="distill")
    options.add_argument("--translator", help="a checkpoint of the recipe's form")
    options.add_argument("--train", action="store_true", help="train missing adapters")
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    corpora = [corpus(args, size) for size in args.sizes]
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    translator = Translator.load(args.translator, lm) if args.translator else None
    with open_store(lm) as store:
        model = ParametricModel(
            lm, store, recipe=get_recipe(args.recipe), max_adapters=args.k, translator=translator
        ).attach()
        costs = measure_costs(model, again=True)
        asker = _Asker(model, args.dtype)
        rows, complete = [], True
        for made in corpora:
            ways, done = _ways(made, model, args, deadline)
            complete &= done
            for way in ways:
                rows.append(_row(made, way, asker, model, costs, deadline))
                note({k: v for k, v in rows[-1].items() if not isinstance(v, dict)})
    complete &= all(row["n"] == row["asked"] for row in rows)
    _report(args, lm, model, costs, corpora, rows, complete=complete)


def corpus(args: Any, size: int) -> Corpus:
    """Build a corpus of passages that questions are about, filled up with others to the given size."""
    every = draw(load_facts(args.data), passages=size, per_passage=99, seed=args.seed)
    titles = {f.passage: f.title for f in every}
    passages = [Passage(text, title) for text, title in titles.items()]
    if args.others and len(passages) < size:
        lines = [line for _, line in read_json_lines(args.others)]
        others = [Passage(line["text"], line.get("title", "")) for line in lines if line["text"] not in titles]
        passages += list(dict.fromkeys(others))[: size - len(passages)]
    # One question per passage in turn, so that a few questions already cover many passages.
    grouped = list(by_passage(every).values())
    turns = [group[i] for i in range(max(map(len, grouped))) for group in grouped if i < len(group)]
    documents = [Document(p.text, metadata={"title": p.title}) for p in passages]
    retriever = BM25Retriever.from_documents(documents, k=args.k)
    return Corpus(tuple(passages), tuple(turns[: args.questions]), retriever)


def _ways(made: Corpus, model: ParametricModel, args: Any, deadline: Deadline) -> tuple[list[PlacementMode], bool]:
    done = parametrize(model, parametrizer, made.passages, deadline) if args.train else True
    ways: list[PlacementMode] = ["context"]
    missing = sum(not model.knows(p.text) for p in made.passages)
    if missing:
        note(f"{len(made.passages)} passages, {missing} of them without a trained adapter: `trained` is left out")
    else:
        ways.append("trained")
    if model.translations is not None:
        model.translations.keep(made.passages, progress=True)
        ways.append("translated")
    return ways, done


class _Asker:
    """Asks questions one at a time and times each part; answers are kept on disk."""

    def __init__(self, model: ParametricModel, dtype: str) -> None:
        self._model = model
        self._dtype = dtype
        self._records = Records("scalability")
        self._calls = 0

    def ask(self, fact: Fact, way: PlacementMode, made: Corpus, deadline: Deadline) -> dict[str, Any] | None:
        started = time.perf_counter()
        found = [d.page_content for d in made.retriever.invoke(fact.question)]
        retrieval = time.perf_counter() - started
        about = {
            "model": self._model.lm.fingerprint,
            "dtype": self._dtype,
            "question": fact.question,
            "found": found,
            "way": way,
            "keys": [self._key(text, way).digest for text in found] if way != "context" else [],
            "prompt": prompt_ids(self._model.lm.tokenizer, "?"),
        }
        if (known := self._records.get(key_of(about))) is None and not deadline.over:
            known = self._timed(fact, found, way)
            self._records.put(key_of(about), about, known)
        return None if known is None else known | {"retrieval": retrieval, "found": fact.passage in found}

    def _timed(self, fact: Fact, found: Sequence[str], way: PlacementMode) -> dict[str, Any]:
        engine = self._model.lm.engine
        engine.prefixes.clear()
        activation, selection = 0.0, None
        if way != "context":
            # A different strength in each call, so that no slot holds these adapters.
            self._calls += 1
            keys = [self._key(text, way) for text in found]
            selection = cast("ActiveAdapters", self._model.select(keys, strength=1 + 1e-7 * self._calls))
            started = time.perf_counter()
            engine.run(self._activate, selection)
            activation = time.perf_counter() - started
        ids = prompt_ids(self._model.lm.tokenizer, fact.question, found if way == "context" else ())
        started, first, text = time.perf_counter(), 0.0, ""
        with engine.stream(Request(ids, ANSWER_TOKENS, adapters=selection)) as stream:
            for step in stream:
                first = first or time.perf_counter() - started
                text += step.text
        answer = clean_answer(text)
        return {
            "answer": answer,
            "f1": f1(answer, fact.answers),
            "activation": activation,
            "first": first,
            "generation": time.perf_counter() - started,
            "prompt_tokens": len(ids),
        }

    def _activate(self, selection: ActiveAdapters) -> None:
        with self._model.bank.activate([selection]):
            pass

    def _key(self, text: str, way: PlacementMode) -> Any:
        if way == "translated":
            assert self._model.translations is not None
            return self._model.translations.translator.key(text)
        return self._model.key(text)


def _row(
    made: Corpus, way: PlacementMode, asker: _Asker, model: ParametricModel, costs: Costs, deadline: Deadline
) -> dict[str, Any]:
    told = [(fact, asker.ask(fact, way, made, deadline)) for fact in made.facts]
    known = [(fact, r) for fact, r in told if r is not None]
    values = [100 * r["f1"] for _, r in known]
    low, high = interval(values, groups=[fact.passage for fact, _ in known])
    milliseconds = {
        f"{name} ms": 1000 * mean([r[name] for _, r in known]) for name in ("retrieval", "activation", "first")
    }
    return {
        "documents": len(made.passages),
        "way": way,
        "n": len(known),
        "asked": len(made.facts),
        "f1": mean(values),
        "interval": f"{low:.1f} to {high:.1f}",
        "low": low,
        "high": high,
        "found": 100 * mean([float(r["found"]) for _, r in known]),
        **milliseconds,
        "generation ms": 1000 * mean([r["generation"] for _, r in known]),
        "prompt tokens": mean([r["prompt_tokens"] for _, r in known]),
        "bytes a document": _bytes(made, way, model),
        "ingestion s": sum(costs.once(way, _tokens(model, p.text)) for p in made.passages),
    }


def _bytes(made: Corpus, way: PlacementMode, model: ParametricModel) -> float:
    if way == "translated":
        assert model.translations is not None
        return model.translations.translator.config.representation_bytes
    if way == "trained":
        adapter = cast("Any", model.store).get(model.key(made.passages[0].text))
        return len(encode(adapter, "bfloat16"))
    return mean([len(p.text.encode()) for p in made.passages])


def _tokens(model: ParametricModel, text: str) -> int:
    return len(model.lm.tokenizer(text, add_special_tokens=False).input_ids)


def crossover(costs: Costs, way: PlacementMode, tokens: int) -> float:
    """Return the queries between two updates of a document above which this way costs less than reading it each time.

    Solves once(way) + q each(way) = q each(context) for q; infinite if a query in this way costs as much as reading.
    """
    saved = costs.each("context", tokens) - costs.each(way, tokens)
    return costs.once(way, tokens) / saved if saved > 0 else math.inf


def _report(
    args: Any,
    lm: CausalLM,
    model: ParametricModel,
    costs: Costs,
    corpora: Sequence[Corpus],
    rows: Sequence[dict[str, Any]],
    *,
    complete: bool,
) -> None:
    tokens = round(mean([_tokens(model, p.text) for p in corpora[-1].passages]))
    ways: list[PlacementMode] = [w for w in WAYS if w != "translated" or model.translations is not None]
    pays: dict[str, float] = {way: crossover(costs, way, tokens) for way in ways if way != "context"}
    report = f"# As the corpus grows: {lm.name}, {args.dtype}, {args.recipe}, k = {args.k}\n\n"
    report += f"Questions of {args.data.name}, seed {args.seed}; F1 in percent, 95 % intervals by bootstrap over "
    report += "passages. `found`: how often the right passage is among those retrieved, in percent.\n\n"
    report += table(rows, [c for c in rows[0] if c not in ("low", "high", "asked")]) + "\n\n"
    report += f"For a document of {tokens} tokens, by the calibration: "
    report += "; ".join(f"{way} pays off from {q:.3g} queries between two updates" for way, q in pays.items()) + ".\n"
    note(report)
    figures = {
        "complete": complete,
        "rows": list(rows),
        "costs": costs.to_dict(),
        "tokens": tokens,
        "crossover_queries": {way: None if math.isinf(q) else q for way, q in pays.items()},
        "k": args.k,
        "model": lm.name,
        "dtype": args.dtype,
        "data": args.data.name,
        "recipe": get_recipe(args.recipe).to_dict(),
        "seed": args.seed,
        "machine": machine(),
    }
    finish("scalability", figures, args.out, report)


if __name__ == "__main__":
    main()
