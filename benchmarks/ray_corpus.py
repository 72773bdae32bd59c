"""Training a corpus on a Ray cluster: two workers of one thread each compared with one worker of one thread.

- `ratio`: seconds of one worker over seconds of two, for the same passages, in one run on one machine. The time is that
  of `RayParametrizer.parametrize` from the first batch to the last stored adapter, with workers that have loaded the
  model and trained some passages already.
- `identical`: how many of the passages have the same adapter from both, bit for bit.
- `load`: the machine's load before each part; on a machine that is not idle, the ratio says little.

Passages are pieces of the corpus's documents of at most `--words` words. The cluster has as many CPUs as workers, and
ends with the run.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from llamaindex_prag.cluster.ray_parametrizer import RayParametrizer
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.documents import read_json_lines
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.ray_cluster import require_ray

DATA = Path("examples/data/ombrel/corpus.jsonl")
WORKERS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Training a corpus on a Ray cluster: two workers compared with one.")
    options.add_argument("--passages", type=int, default=200)
    options.add_argument("--words", type=int, default=40, help="most words of a passage")
    options.add_argument("--together", type=int, default=4, help="passages that a worker trains together")
    options.add_argument("--recipe", default="prag")
    options.add_argument(
        "--data", type=Path, default=DATA, help="JSON lines with the field text (default: %(default)s)"
    )
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    passages = _passages(args.data, args.passages, args.words)
    lm = CausalLM.from_pretrained(args.model, device="cpu", dtype=args.dtype)
    rows: list[dict[str, Any]] = []
    made: list[dict[str, bytes]] = []
    with _cluster(max(WORKERS)), tempfile.TemporaryDirectory(prefix="dynprag-ray-") as folder:
        for workers in WORKERS:
            if deadline.over:
                break
            with LMDBStore(Path(folder) / str(workers), model=lm.fingerprint, encoding="float32") as store:
                model = ParametricModel(lm, store, recipe=args.recipe)
                rows.append(_measured(model, passages, workers, args.together))
                made.append({p.text: _bytes(store, model, p) for p in passages})
            note(rows[-1])
    both = len(rows) == len(WORKERS)
    figures = {
        "ratio": rows[0]["seconds"] / rows[1]["seconds"] if both else None,
        "identical": sum(made[0][p.text] == made[1][p.text] for p in passages) if both else None,
        "passages": len(passages),
        "mean_tokens": sum(len(lm.tokenizer(p.text).input_ids) for p in passages) / len(passages),
        "together": args.together,
        "recipe": args.recipe,
        "runs": rows,
        "model": lm.name,
        "dtype": args.dtype,
        "machine": machine(),
    }
    report = f"# Training a corpus on a Ray cluster: {lm.name}, {args.dtype}, {args.recipe}\n\n"
    report += table(rows, ["workers", "passages", "seconds", "seconds_a_passage", "start_seconds", "load"]) + "\n\n"
    report += f"ratio {figures['ratio']:.3f}, identical {figures['identical']} of {len(passages)}" if both else ""
    note(report)
    finish("ray_corpus", figures, args.out, report)


def _passages(data: Path, n: int, words: int) -> list[Passage]:
    found: dict[str, Passage] = {}
    for number, row in read_json_lines(data):
        every = str(row["text"]).split()
        for begin in range(0, len(every), words):  # a long document gives several passages
            text = " ".join(every[begin : begin + words])
            if len(text.split()) >= words // 2:
                found.setdefault(text, Passage(text, str(row.get("title") or ""), f"{number}/{begin}"))
    if len(found) < n:
        raise SystemExit(f"{data} has {len(found)} passages of {words} words; --passages asks for {n}")
    return list(found.values())[:n]


@contextmanager
def _cluster(cpus: int) -> Iterator[None]:
    """Start a cluster of this machine with some CPUs for the duration of the block."""
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "object_store_memory": 200_000_000}
    ray.init("local", num_cpus=cpus, include_dashboard=False, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _measured(model: ParametricModel, passages: Sequence[Passage], workers: int, together: int) -> dict[str, Any]:
    first = [Passage(f"Boat {i} is blue.") for i in range(workers * together)]  # one batch for each worker
    with RayParametrizer(model, workers=workers, documents_at_once=together) as parametrizer:
        started = time.perf_counter()
        parametrizer.parametrize(first, progress=False)
        start_seconds = time.perf_counter() - started
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        report = parametrizer.parametrize(passages, progress=False)
    assert report.trained == len(passages)
    return {
        "workers": workers,
        "passages": report.trained,
        "seconds": report.seconds,
        "seconds_a_passage": report.seconds / report.trained,
        "start_seconds": start_seconds,
        "load": load,
    }


def _bytes(store: LMDBStore, model: ParametricModel, passage: Passage) -> bytes:
    adapter = store.get(model.key(passage.text))
    assert adapter is not None
    return adapter.buffer.tobytes()


if __name__ == "__main__":
    main()
