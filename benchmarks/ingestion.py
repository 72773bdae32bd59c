"""What making adapters of short notes takes as a whole, what was estimated, and whether the adapters answer.

- `seconds`: of the whole job, the questions included, as `Parametrizer.parametrize` has it; a loaded model, no trial.
- `estimated`: by a trial before the job, as at a machine's first one; `trial_seconds` of that.
- `longest_stand`: seconds between two movements of the progress at most.
- `right_adapter`, `right_closed`, `right_context`: of `questions`, those whose answer has the right one in it.

A note is the beginning of a passage of the corpus, whole sentences of at most 38 words, with the questions of one step
that it answers. Ways: `prag` (whose questions a small model's are by rule), `prag-model` (that model writes them),
`distill`. A job that has been measured is not measured again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.runs import Records, key_of
from benchmarks.single_hop import Fact, load_facts
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.augment.grounding import PassageWords as Words
from llamaindex_prag.jobs import pace
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.progress import JobStatus
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import contains
from rag_backbone.text.units import sentences

DATA = Path("examples/data/ombrel")
WORDS = 38


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Making the adapters of short notes: the whole time, and what they answer.")
    options.add_argument("--ways", default="prag,distill", help="of prag, prag-model, distill")
    options.add_argument("--notes", default="1,10", help="how many, several in turn")
    args = options.parse_args(arguments)
    deadline, records = Deadline(args.max_minutes), Records("ingestion")
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    rows: list[dict[str, Any]] = []
    for n in map(int, args.notes.split(",")):
        for way in args.ways.split(","):
            about = {
                "model": lm.fingerprint,
                "dtype": args.dtype,
                "way": way,
                "recipe": asdict(_recipe(way)),
                "notes": n,
                "machine": machine(),
            }
            record = records.get(key_of(about))
            if record is None and not deadline.over:
                record = _measured(lm, _recipe(way), _notes(n))
                records.put(key_of(about), about, record)
                note(way, n, record)
            rows.append({"way": way, "notes": n, **(record or {})})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    report = f"# Making adapters of notes: {lm.name}, {args.dtype}\n\n{table(rows, columns)}\n"
    figures = {"jobs": rows, "model": lm.name, "dtype": args.dtype, "machine": machine()}
    finish("ingestion", figures, args.out, report)


def _recipe(way: str) -> Recipe:
    return get_recipe("prag", augmentation="model") if way == "prag-model" else get_recipe(way)


def _notes(n: int) -> list[tuple[Passage, list[Fact]]]:
    found: dict[str, tuple[Passage, list[Fact]]] = {}
    for fact in load_facts(DATA):
        text = _beginning(fact.passage)
        answered = contains(text, fact.answers) and Words(fact.title, text).share(fact.question) >= 0.6
        if answered:
            found.setdefault(text, (Passage(text, fact.title, fact.title), []))[1].append(fact)
    if len(found) < n:
        raise SystemExit(f"{DATA} has {len(found)} such notes; {n} were asked for")
    return list(found.values())[:n]


def _beginning(passage: str) -> str:
    kept = ""
    for span in sentences(passage):
        longer = kept + passage[span.start : span.end]
        if kept and len(longer.split()) > WORDS:
            break
        kept = longer
    return kept.strip()


def _measured(lm: CausalLM, recipe: Recipe, notes: Sequence[tuple[Passage, Sequence[Fact]]]) -> dict[str, Any]:
    seen: list[JobStatus] = []
    passages, facts = [p for p, _ in notes], [(p.text, f) for p, own in notes for f in own]
    with (
        tempfile.TemporaryDirectory(prefix="dynprag-ingestion-") as folder,
        LMDBStore(Path(folder) / "store", model=lm.fingerprint) as store,
    ):
        model = ParametricModel(lm, store, recipe=recipe).attach()
        maker = Parametrizer(model)
        pace.forget(model, maker.augmenter)
        started = time.perf_counter()
        estimate = maker.estimate(passages)
        trial = time.perf_counter() - started
        report = maker.parametrize(passages, progress=False, watch=seen.append)
        answers = {
            "adapter": [model.answer(f.question, documents=[text]) for text, f in facts],
            "closed": [model.answer(f.question) for _, f in facts],
            "context": [model.answer(f.question, passages=[text]) for text, f in facts],
        }
    right = {
        f"right_{how}": sum(contains(said, f.answers) for said, (_, f) in zip(found, facts, strict=True))
        for how, found in answers.items()
    }
    stood = max((b.seconds - a.seconds for a, b in pairwise(seen)), default=0.0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "seconds": report.seconds,
        "made": report.trained,
        "estimated": estimate.seconds,
        "trial_seconds": trial,
        "longest_stand": stood,
        **right,
        "questions": len(facts),
        "load": load,
    }


if __name__ == "__main__":
    main()
