"""Inter-token latency of a stream during the prefill of another request's long prompt.

One stream generates token by token. Meanwhile another thread requests the first token after a long prompt that is not
in the prefix cache. Figures:

- `longest_wait`, `usual_wait`: the maximum and the median of the stream's inter-token latencies during that prefill, as
  multiples of its median latency without it.
- `reading`: the other request's time to first token, as a multiple of that time on an idle engine.

Each is the median over the repetitions; the largest `longest_wait` is reported too.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.contract import Deadline, finish, machine, note, parser
from benchmarks.runs import load_chat
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling

if TYPE_CHECKING:
    from rag_backbone.engine.engine import Engine
    from rag_backbone.engine.signals import TokenStep

_BEGINNING = "The lighthouse on the northern cape was built in a year when the harbour froze."
_STEPS_ALONE = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Inter-token latency of a stream during the prefill of another request's long prompt.")
    options.add_argument("--prompt-tokens", type=int, default=2000)
    options.add_argument("--repetitions", type=int, default=9)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    lm = load_chat(args.model, args.dtype).lm
    ids = lm.tokenizer(_BEGINNING * 300).input_ids[: args.prompt_tokens]
    found: list[dict[str, float]] = []
    for i in range(args.repetitions + 1):
        figures = _repetition(lm.engine, ids)
        if i:  # the first is a warm-up
            found.append(figures)
            note(f"{i}/{args.repetitions}: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
        if deadline.over and found:
            break
    medians: dict[str, Any] = {name: statistics.median(f[name] for f in found) for name in found[0]}
    largest = max(f["longest_wait"] for f in found)
    what = {"model": lm.name, "dtype": args.dtype, "prompt_tokens": len(ids), "machine": machine()}
    report = f"# Waiting for a prompt of {len(ids)} tokens: {lm.name}, {args.dtype}\n\n"
    report += "\n".join(f"- {name}: {value:.2f}" for name, value in medians.items())
    report += f"\n- longest_wait, the largest of {len(found)}: {largest:.2f}"
    note(report)
    finish("waiting", {**medians, "largest": largest, "repetitions": found, **what}, args.out, report)


def _repetition(engine: Engine, ids: list[int]) -> dict[str, float]:
    engine.prefixes.clear()
    started = time.perf_counter()
    engine.generate(Request(ids, 1))
    alone = time.perf_counter() - started
    engine.prefixes.clear()
    never = Sampling(logit_bias=dict.fromkeys(engine.end_ids, -1e9))
    with engine.stream(Request(_BEGINNING, 4096, sampling=never)) as stream:
        steps = iter(stream)
        next(steps)
        step = statistics.median(_seconds(steps) for _ in range(_STEPS_ALONE))
        reader = threading.Thread(target=engine.generate, args=(Request(ids, 1),))
        started = time.perf_counter()
        reader.start()
        waits = []
        while reader.is_alive():
            waits.append(_seconds(steps))
        reading = time.perf_counter() - started
    return {
        "longest_wait": max(waits) / step,
        "usual_wait": statistics.median(waits) / step,
        "reading": reading / alone,
        "step_seconds": step,
        "prompt_seconds": alone,
    }


def _seconds(steps: Iterator[TokenStep]) -> float:
    started = time.perf_counter()
    next(steps)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
