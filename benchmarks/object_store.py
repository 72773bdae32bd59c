"""Time to read the adapters of three documents from a shared store, compared with the LMDB store, in one run.

- `NAME_warm_ms`: from the local cache (shared stores) or mapped pages (LMDB), median.
- `NAME_cold_ms`: with an empty local cache and the records already read, or, for LMDB, reopened after its pages were
  dropped; median.
- `NAME_open_ms`: opening the store and reading its records, median.
- `NAME_warm_best_ms` and so on: the fastest repetition, which a busy machine distorts less.
- `warm_ratio`: the warm S3 store over the warm LMDB store, of their fastest repetitions.

`s3` is a moto server on this machine, in a process of its own: its figures hold no network. The stored adapters are
random and of PRAG's size for SmolLM2-135M: the time does not depend on their values.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contract import finish, machine, note, parser, table
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.recipe import PRAG
from llamaindex_prag.store import LMDBStore, ObjectStore
from llamaindex_prag.store.datafile import DATA_FILE

K = 3
COLUMNS = ("open", "cold", "warm")
MODEL = "0" * 64
_LAYERS, _WIDTH, _INNER = 30, 576, 1536

Store = LMDBStore | ObjectStore


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Reading three documents' adapters from a shared store.")
    options.add_argument("--documents", type=int, default=100, help="adapters in each store")
    options.add_argument("--encoding", default="bfloat16", choices=["float32", "bfloat16", "int4"])
    options.add_argument("--repetitions", type=int, default=50, help="warm reads of three")
    options.add_argument("--cold-repetitions", type=int, default=7, help="cold reads of three")
    args = options.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="dynprag-object-store-"))
    try:
        with _s3_server() as endpoint:
            figures = _measure(folder, endpoint, args)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    columns = [*COLUMNS, *(f"{column}_best" for column in COLUMNS)]
    rows = [
        {"store": name, **{column: figures[f"{name}_{column}_ms"] for column in columns}}
        for name in ("lmdb", "file", "s3")
    ]
    figures |= {
        "documents": args.documents,
        "encoding": args.encoding,
        "values": _layout().size,
        "load": os.getloadavg()[0],
        "machine": machine(),
    }
    report = f"# Reading the adapters of three documents, of {args.documents} in {args.encoding}: milliseconds\n\n"
    report += table(rows, ["store", *columns])
    report += f"\n\nwarm_ratio {figures['warm_ratio']:.3g}; load average of the machine {figures['load']:.1f}"
    note(report)
    finish("object_store", figures, args.out, report)


def _measure(folder: Path, endpoint: str, args: Any) -> dict[str, Any]:
    s3 = {"endpoint_url": endpoint, "key": "benchmark", "secret": "benchmark"}
    layout = _layout()
    keys = [AdapterKey(MODEL, PRAG.key, text_hash(f"document {i}")) for i in range(args.documents)]
    caches = iter(range(10_000))

    def lmdb() -> Store:
        return LMDBStore(folder / "lmdb", model=MODEL, encoding=args.encoding)

    def shared(url: str, options: dict[str, Any]) -> Callable[[], Store]:
        return lambda: ObjectStore(
            url, model=MODEL, encoding=args.encoding, storage_options=options, cache=folder / f"cache{next(caches)}"
        )

    _new_bucket(s3)
    places: dict[str, Callable[[], Store]] = {
        "lmdb": lmdb,
        "file": shared(f"file://{folder}/shared", {}),
        "s3": shared("s3://benchmark/shared", s3),
    }
    rng = np.random.default_rng(args.seed)
    for name, opened in places.items():
        with opened() as store:
            for key in keys:
                values = rng.standard_normal(layout.size, dtype=np.float32) * np.float32(0.02)
                store.put(key, Adapter(layout, values, PRAG.scale), {}, owners=[key.text])
            store.gc()
        note(f"{name}: {len(keys)} adapters stored")
    seconds: dict[str, list[float]] = {f"{name}_{column}": [] for name in places for column in COLUMNS}
    for _ in range(args.cold_repetitions):
        for name, opened in places.items():
            _drop_pages(folder / "lmdb" / DATA_FILE)
            started = time.perf_counter()
            with opened() as store:
                assert len(store) == len(keys)
                seconds[f"{name}_open"].append(time.perf_counter() - started)
                seconds[f"{name}_cold"].append(_seconds(store, keys, layout, rng))
    with ExitStack() as stack:
        stores: dict[str, Store] = {}
        for name, opened in places.items():
            stores[name] = store = opened()
            stack.callback(store.close)
            for key in keys:
                store.get(key)
        for _ in range(args.repetitions):  # in turn, so that whatever else the machine does strikes all of them
            for name, store in stores.items():
                seconds[f"{name}_warm"].append(_seconds(store, keys, layout, rng))
    figures = {f"{name}_ms": 1e3 * statistics.median(found) for name, found in seconds.items()}
    figures |= {f"{name}_best_ms": 1e3 * min(found) for name, found in seconds.items()}
    return figures | {"warm_ratio": figures["s3_warm_best_ms"] / figures["lmdb_warm_best_ms"]}


def _seconds(store: Store, keys: Sequence[AdapterKey], layout: Layout, rng: np.random.Generator) -> float:
    """Read three random adapters, as a bank does."""
    chosen = [keys[i] for i in rng.choice(len(keys), K, replace=False)]
    outs = list(np.empty((K, layout.size), np.float32))
    started = time.perf_counter()
    if isinstance(store, ObjectStore):
        store.read_many(chosen, outs)
    else:
        for key, out in zip(chosen, outs, strict=True):
            store.read_into(key, out)
    return time.perf_counter() - started


def _layout() -> Layout:
    """Return PRAG's layout for SmolLM2-135M, of 380,160 values."""
    shapes = (("up_proj", _WIDTH, _INNER), ("gate_proj", _WIDTH, _INNER), ("down_proj", _INNER, _WIDTH))
    targets = [
        Target(f"model.layers.{i}.mlp.{name}", inputs, outputs)
        for i in range(_LAYERS)
        for name, inputs, outputs in shapes
    ]
    return Layout(tuple(targets), PRAG.rank)


def _drop_pages(path: Path) -> None:
    """Drop a file's pages from the page cache, where the system can."""
    if path.exists() and hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _new_bucket(options: dict[str, Any]) -> None:
    import s3fs

    s3fs.S3FileSystem(**options).mkdir("benchmark")


@contextmanager
def _s3_server() -> Iterator[str]:
    """Run a moto server in a process of its own; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
