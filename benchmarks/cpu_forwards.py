"""What makes forwards on a CPU faster, each with and without, in turn in one process.

- `weight_first`: linear layers of one to four rows as the product of weight and transposed states (float32).
- `slots`: what is the rows' own in one batch from step to step, against each row's own products.
- `alone`: a step's new keys and values in slots alone, against rows that keep them at once too.
- `products`: a prompt's attention as a few large products, against PyTorch's kernel (bfloat16).
- `thread`: forwards in a thread of their own, against threads that take turns and compute each for itself.

Every row has a prompt of its own behind a common beginning, as sessions of one graph have. Figures are medians of
milliseconds; `ratio` is the time with over the time without.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks.contract import finish, machine, note, parser, table
from benchmarks.runs import load_chat
from rag_backbone import cpu_linears, row_attention
from rag_backbone.forward_thread import ForwardThread, release_team
from rag_backbone.kv_cache import SequenceCache
from rag_backbone.row_layout import RowLayout
from rag_backbone.row_slots import RowSlots

if TYPE_CHECKING:
    from rag_backbone.engine import Engine

_COMMON, _OWN = 489, 250
"""Tokens, as `flare`'s prompts have them with six examples and three passages."""
_THREADS = 8
_RUN = 4

Way = contextlib.AbstractContextManager[Any]


class Forwards:
    """Forwards over sequences that grow by a token at each step."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine
        self._random = torch.Generator().manual_seed(seed)
        self._base = SequenceCache.empty(engine.model.config)
        self._grow(self._base, _COMMON)
        self._rows = [self._base.copy(_COMMON) for _ in range(8)]
        for row in self._rows:
            self._grow(row, _OWN)

    def step(self, rows: int) -> None:
        """One token more of so many rows, which keep it."""
        if rows == 1:
            self._forward([[5]], self._rows[0])
        else:
            layout = RowLayout(self._rows[:rows], [[5]] * rows)
            self._engine._forward(layout, adapters=[None] * rows)  # noqa: SLF001
        for row in self._rows[:rows]:
            row.ids.append(5)

    def prompt(self, tokens: int) -> None:
        """So many tokens behind the common beginning."""
        self._forward([self._ids(tokens)], self._base.copy(_COMMON))

    def _forward(self, ids: list[list[int]], sequence: SequenceCache) -> None:
        self._engine._forward(ids, sequence.cache, adapters=[None])  # noqa: SLF001

    def _grow(self, sequence: SequenceCache, tokens: int) -> None:
        ids = self._ids(tokens)
        self._forward([ids], sequence)
        sequence.ids = sequence.ids + ids

    def _ids(self, tokens: int) -> list[int]:
        return torch.randint(3, self._engine.model.config.vocab_size, (tokens,), generator=self._random).tolist()


def compared(name: str, call: Callable[[], None], without: Callable[[], Way], repeats: int) -> dict[str, Any]:
    """Medians with and without, in short runs that take turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for i in range(2 * repeats + 2):
        usual = i % 2 == 0
        with contextlib.nullcontext() if usual else without():
            for n in range(_RUN):
                started = time.perf_counter()
                call()
                if i > 1 and n:  # the first of each pays for what is prepared lazily, or left behind by the other
                    seconds[usual].append(time.perf_counter() - started)
    of = {usual: 1000 * statistics.median(found) for usual, found in seconds.items()}
    note(f"{name}: {of[True]:.1f} ms, without {of[False]:.1f}")
    return {"forward": name, "ms": of[True], "ms_without": of[False], "ratio": of[True] / of[False]}


@contextlib.contextmanager
def _each_for_itself() -> Iterator[None]:
    with patch.object(ForwardThread, "run", lambda _, call: call()):
        yield


def from_threads(forwards: Forwards, rows: int, repeats: int) -> dict[str, Any]:
    """Steps that several threads ask for in turn, each phase in threads of its own."""
    medians = {}
    for usual in (True, False):
        pools = [ThreadPoolExecutor(1) for _ in range(_THREADS)]
        with contextlib.nullcontext() if usual else _each_for_itself():
            seconds = []
            for i in range(_THREADS + 4 * repeats):
                started = time.perf_counter()
                pools[i % _THREADS].submit(torch.inference_mode()(forwards.step), rows).result()
                seconds.append(time.perf_counter() - started)
        for pool in pools:
            pool.shutdown()
        medians[usual] = 1000 * statistics.median(seconds[_THREADS:])
    note(f"{_THREADS} threads, {rows} rows: {medians[True]:.1f} ms, without {medians[False]:.1f}")
    ratio = medians[True] / medians[False]
    return {"forward": f"step, {rows} rows", "ms": medians[True], "ms_without": medians[False], "ratio": ratio}


def ways_without(engine: Engine) -> dict[str, Callable[[], Way]]:
    """How each of them is left out."""
    slots = engine._call._slots  # noqa: SLF001
    return {
        "weight_first": lambda: patch.object(cpu_linears, "pays", lambda *_: False),
        "slots": lambda: patch.object(RowSlots, "step", lambda *_: None),
        "alone": lambda: patch.object(slots, "holds_alone", new=False),
        "prompts": lambda: patch.object(row_attention, "is_for", lambda *_: False),
    }


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("What makes forwards on a CPU faster.")
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    args = options.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for dtype in args.dtypes:
        engine = load_chat(args.model, dtype).lm.engine
        forwards = Forwards(engine, args.seed)

        ways = ways_without(engine)
        release_team()
        cases = [("weight_first", "step", n) for n in (1, 2, 4)] if dtype == "float32" else []
        cases += [(what, "step", n) for what in ("slots", "alone") for n in (2, 4, 8)]
        cases += [("prompts", "prompt", n) for n in (32, 128, 400)]
        for what, kind, n in cases:
            call = functools.partial(forwards.step if kind == "step" else forwards.prompt, n)
            name = f"{kind}, {n} {'rows' if kind == 'step' else 'tokens'}"
            rows.append({"dtype": dtype, "what": what, **compared(name, call, ways[what], args.repeats)})
        rows += [{"dtype": dtype, "what": "thread", **from_threads(forwards, n, args.repeats)} for n in (1, 8)]
    report = f"# Forwards on a CPU: {args.model}\n\n{table(rows, list(rows[0]))}\n"
    note(report)
    figures = {"rows": rows, "model": args.model, "seed": args.seed, "repeats": args.repeats, "machine": machine()}
    finish("cpu_forwards", figures, args.out, report)


if __name__ == "__main__":
    main()
