"""Time to activate the adapters of three documents, including the read from the store, compared with PEFT.

- `ratio_vs_peft`: the published procedure (load three adapters, `add_weighted_adapter("cat")`, `set_adapter`, delete
  them, unload) over ours.
- `ratio_vs_hotswap`: PEFT's `hotswap_adapter` of *one* adapter over ours of three.
- `flatness`: ours with the largest store over ours with the next smaller one, both warm.
- `cold_p95_ms`: ours after the file's pages were dropped and the store reopened.
- `anonymous_mb_per_1000`: growth of anonymous memory over 1,000 activated documents; mapped pages do not count.
- `decode_overhead_inactive`, `decode_overhead_active`: 1 - without / with, for a token without adapters on an engine
  with a bank, and for a token with three documents, compared with an engine without a bank; they alternate token by
  token.

The stored adapters are random: neither time nor memory depends on their values.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.contract import finish, machine, note, parser, table
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.store.peft_folder import export_peft
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.loading.causal_lm import CausalLM

if TYPE_CHECKING:
    from llamaindex_prag.adapters.layout import Layout

K = 3
DATA_FILE = "data.mdb"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Activating adapters: bank and store compared with PEFT.")
    options.add_argument("--recipe", default="prag", help="the recipe that sets rank and layers of the adapters")
    options.add_argument("--documents", type=int, nargs="+", default=[10, 1000, 10_000], help="sizes of the store")
    options.add_argument("--encoding", default="bfloat16", choices=["float32", "bfloat16", "int4"])
    options.add_argument("--repetitions", type=int, default=200, help="our activations at each size")
    options.add_argument("--peft-repetitions", type=int, default=7)
    options.add_argument("--tokens", type=int, default=64, help="tokens decoded to measure the overhead")
    args = options.parse_args(arguments)
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    recipe = get_recipe(args.recipe)
    layout = layout_of(lm.model, rank=recipe.rank, targets=recipe.targets, layers=recipe.layers)
    folder = Path(tempfile.mkdtemp(prefix="dynprag-injection-"))
    try:
        figures = _measure(lm, layout, recipe.key, recipe.scale, folder, args)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures |= {
        "model": lm.name,
        "dtype": args.dtype,
        "recipe": recipe.name,
        "encoding": args.encoding,
        "values": layout.size,
        "documents": args.documents,
        "machine": machine(),
    }
    rows = [{"documents": n, "ms for three": ms} for n, ms in figures["ms_by_documents"].items()]
    rows += [{"documents": "PEFT, published", "ms for three": figures["peft_ms"]}]
    rows += [{"documents": "PEFT, hotswap of one", "ms for three": figures["hotswap_ms"]}]
    report = f"# Activating three documents: {lm.name}, {args.dtype}, {recipe.name}\n\n"
    report += table(rows, ["documents", "ms for three"]) + "\n\n"
    report += ", ".join(f"{n} {v:.3g}" for n, v in figures.items() if isinstance(v, float))
    note(report)
    finish("injection", figures, args.out, report)


def _measure(lm: CausalLM, layout: Layout, recipe: str, scale: float, folder: Path, args: Any) -> dict[str, Any]:
    rng = np.random.default_rng(args.seed)
    keys = [AdapterKey(lm.fingerprint, recipe, text_hash(f"document {i}")) for i in range(max(args.documents))]
    path = folder / "store"
    by_size: dict[int, float] = {}
    anonymous, filled = 0.0, 0
    for size in sorted(args.documents):
        with LMDBStore(path, model=lm.fingerprint, encoding=args.encoding, map_size=1 << 34) as store:
            _fill(store, keys[filled:size], layout, scale, rng)
            filled = size
            bank = AdapterBank(lm.model, layout, store, max_adapters=K, slots=4)
            ours = _activations(bank, keys[:size], rng)
            for _ in range(size):  # warm: every page has been read
                ours()
            by_size[size] = _median_ms(ours, args.repetitions)
            if size >= 1000:
                before = _anonymous_mb()
                for _ in range(-(-1000 // K)):
                    ours()
                anonymous = _anonymous_mb() - before
            note(f"{size} documents: {by_size[size]:.3f} ms")
    cold = _cold(lm, layout, path, keys[:filled], rng)
    with LMDBStore(path, model=lm.fingerprint) as store:
        adapters = [store.get(key) for key in keys[:K]]
        bank = AdapterBank(lm.model, layout, store, max_adapters=K)
        inactive, active = _decode_overheads(lm, bank, keys[:K], args.tokens)
    for i, adapter in enumerate(adapters):
        assert adapter is not None
        export_peft(adapter, folder / f"peft{i}", base_model_name=lm.name)
    published, hotswap = _peft(lm, [folder / f"peft{i}" for i in range(K)], args.peft_repetitions)
    sizes = sorted(by_size)
    ms = by_size[sizes[-1]]
    return {
        "ms": ms,
        "ratio_vs_peft": published / ms,
        "ratio_vs_hotswap": hotswap / ms,
        "flatness": ms / by_size[sizes[-2]] if len(sizes) > 1 else float("nan"),
        "cold_p95_ms": cold,
        "anonymous_mb_per_1000": anonymous,
        "decode_overhead_inactive": inactive,
        "decode_overhead_active": active,
        "peft_ms": published,
        "hotswap_ms": hotswap,
        "ms_by_documents": {str(n): v for n, v in by_size.items()},
    }


def _fill(store: LMDBStore, keys: Sequence[AdapterKey], layout: Layout, scale: float, rng: np.random.Generator) -> None:
    values = (rng.standard_normal(layout.size) * 0.01).astype(np.float32)
    for key in tqdm(keys, desc="fill", unit="doc"):
        # Different bytes for each document, without drawing new random values each time.
        values = np.roll(values, 1009)
        store.put(key, Adapter(layout, values, scale), {})


def _activations(bank: AdapterBank, keys: Sequence[AdapterKey], rng: np.random.Generator) -> Callable[[], None]:
    """Return a function that activates three documents that no slot holds, as each call uses different weights."""
    calls = 0

    def activate() -> None:
        nonlocal calls
        calls += 1
        chosen = [keys[i] for i in rng.choice(len(keys), K, replace=False)]
        with bank.activate([bank.select(chosen, strength=1.0 + calls * 1e-6)]):
            pass

    return activate


def _cold(lm: CausalLM, layout: Layout, path: Path, keys: Sequence[AdapterKey], rng: np.random.Generator) -> float:
    """Return the 95th percentile of 40 first activations, each after asking the kernel to drop the file's pages."""
    seconds = []
    for _ in range(40):
        with (path / DATA_FILE).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with LMDBStore(path, model=lm.fingerprint, readonly=True) as store:
            ours = _activations(AdapterBank(lm.model, layout, store, max_adapters=K, slots=1), keys, rng)
            seconds.append(_seconds(ours))
    return 1000 * float(np.percentile(seconds, 95))


def _decode_overheads(lm: CausalLM, bank: AdapterBank, keys: Sequence[AdapterKey], tokens: int) -> tuple[float, float]:
    plain, banked = Engine(lm.model, lm.tokenizer), Engine(lm.model, lm.tokenizer)
    banked.attach(bank)
    ids = lm.tokenizer("The lighthouse was built in a year when the harbour froze. " * 30).input_ids
    never = Sampling(logit_bias=dict.fromkeys(plain.end_ids, -1e9))
    streams = [
        plain.stream(Request(ids, tokens, sampling=never)),
        banked.stream(Request(ids, tokens, sampling=never)),
        banked.stream(Request(ids, tokens, sampling=never, adapters=bank.select(keys))),
    ]
    for stream in streams:
        banked.prefixes.clear()
        next(stream)
        next(stream)
    taken: list[list[float]] = [[], [], []]
    for step in range(tokens - 2):
        order = list(enumerate(streams))
        for i, stream in order if step % 2 == 0 else reversed(order):
            taken[i].append(_seconds(partial(next, stream)))
    for stream in streams:
        stream.close()

    def overhead(i: int) -> float:
        return 1 - statistics.median(a / b for a, b in zip(taken[0], taken[i], strict=True))

    return overhead(1), overhead(2)


def _peft(lm: CausalLM, folders: Sequence[Path], repetitions: int) -> tuple[float, float]:
    """Return the milliseconds of the published procedure for three adapters, and of swapping one in place."""
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter

    names = [f"document{i}" for i in range(len(folders))]
    base: Any = copy.deepcopy(lm.model)

    def published() -> None:
        nonlocal base
        model = PeftModel.from_pretrained(base, str(folders[0]), adapter_name=names[0])
        for folder, name in zip(folders[1:], names[1:], strict=True):
            model.load_adapter(str(folder), adapter_name=name)
        model.add_weighted_adapter(names, [1.0] * len(names), "merged", combination_type="cat")
        model.set_adapter("merged")
        for name in [*names, "merged"]:
            model.delete_adapter(name)
        base = model.unload()

    published()
    first = _median_ms(published, repetitions)
    swapped = PeftModel.from_pretrained(copy.deepcopy(lm.model), str(folders[0]), adapter_name="default")
    turn = 0

    def hotswap() -> None:
        nonlocal turn
        turn += 1
        hotswap_adapter(swapped, str(folders[turn % len(folders)]), "default", torch_device=str(lm.model.device))

    hotswap()
    return first, _median_ms(hotswap, repetitions * 3)


def _median_ms(function: Callable[[], Any], repetitions: int) -> float:
    return 1000 * statistics.median(_seconds(function) for _ in range(repetitions))


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
