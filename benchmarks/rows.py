"""Batched decoding: the engine's tokens per second compared with those of transformers' `generate`.

Both continue the same prompts greedily in one batch; all prompts have the same length and none is in the prefix cache.
The engine also reports each token's log-probability and entropy. Both run alternately, on any device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.contract import finish, machine, note, parser, table
from benchmarks.runs import load_chat
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals


def engine_tokens(engine: Engine, prompts: list[list[int]], new: int) -> tuple[float, list[tuple[int, ...]]]:
    """Return the seconds that the engine takes, and the tokens of each sequence."""
    engine.prefixes.clear()
    started = time.perf_counter()
    asked = [Request(ids, new, signals=Signals(entropy=True)) for ids in prompts]
    found = engine.generate_batch(asked)
    return time.perf_counter() - started, [tuple(g.token_ids) for g in found]


def usual_tokens(engine: Engine, prompts: list[list[int]], new: int) -> tuple[float, list[tuple[int, ...]]]:
    """Return the seconds that `generate` takes, and the tokens of each sequence."""
    model: Any = engine.model
    ids = torch.tensor(prompts, device=model.device)
    started = time.perf_counter()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=0)
    rows = out[:, len(prompts[0]) :].tolist()
    found = []
    for row in rows:
        end = next((i for i, token in enumerate(row) if token in engine.end_ids), len(row))
        found.append(tuple(row[:end]))
    return time.perf_counter() - started, found


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Batched decoding by the engine and by transformers.")
    options.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    options.add_argument("--prompt", type=int, default=400, help="tokens of each prompt")
    options.add_argument("--new", type=int, default=64, help="maximum tokens to generate")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    args = options.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    device = ""
    for dtype in args.dtypes:
        engine = load_chat(args.model, dtype).lm.engine
        device = torch.cuda.get_device_name() if engine.model.device.type == "cuda" else engine.model.device.type
        random = torch.Generator().manual_seed(args.seed)
        for n in args.rows:
            shape = (n, args.prompt)
            prompts = torch.randint(3, engine.model.config.vocab_size, shape, generator=random).tolist()
            rates: dict[str, list[float]] = {"engine": [], "generate": []}
            same = 0.0
            for turn in range(args.repeats + 1):
                seconds, ours = engine_tokens(engine, prompts, args.new)
                usual, theirs = usual_tokens(engine, prompts, args.new)
                if turn:  # the first run of each is a warm-up
                    rates["engine"].append(sum(map(len, ours)) / seconds)
                    rates["generate"].append(sum(map(len, theirs)) / usual)
                same = sum(a == b for a, b in zip(ours, theirs, strict=True)) / n
            ours_rate, usual_rate = (statistics.median(rates[name]) for name in ("engine", "generate"))
            rows.append(
                {
                    "dtype": dtype,
                    "rows": n,
                    "engine tokens/s": ours_rate,
                    "generate tokens/s": usual_rate,
                    "ratio": ours_rate / usual_rate,
                    "same texts": same,
                }
            )
            note(f"{dtype}, {n} sequences: {ours_rate:.0f} tokens/s, generate {usual_rate:.0f}")
    report = f"# Batched decoding: {args.model}, {device}\n\n"
    report += f"Prompts of {args.prompt} random tokens, up to {args.new} new ones; medians of {args.repeats}.\n\n"
    report += table(rows, list(rows[0]))
    note(report)
    figures = {"rows": rows, "model": args.model, "seed": args.seed, "machine": machine(), "device": device}
    finish("rows", figures, args.out, report)


if __name__ == "__main__":
    main()
