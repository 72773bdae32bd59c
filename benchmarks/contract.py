"""Shared parts of all benchmarks: options, the deadline, and the output of figures."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import PLOTS
from benchmarks.redraw import digest, sources
from langgraph_dynrag.evaluation.deadline import Deadline
from rag_backbone import plot_style
from rag_backbone.errors import MissingExtraError
from rag_backbone.loading.cache_folder import cache_root, write_json

__all__ = ["Deadline", "finish", "machine", "note", "parser", "records_folder", "table"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def parser(description: str, *, model: str = "embedded", dtype: str = "float32") -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default=model, help="'embedded', a folder or a Hub id (default: %(default)s)")
    options.add_argument("--dtype", default=dtype, choices=["float32", "bfloat16", "float16", "auto"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--threads", action=_Threads, type=int, default=0, help="torch threads; default: PyTorch's choice"
    )
    options.add_argument("--out", type=Path, help="a folder for figures, plots and the report")
    options.add_argument("--max-minutes", type=float, default=float("inf"), help="stop cleanly after this long")
    return options


class _Threads(argparse.Action):
    """An action that sets the threads immediately, so that no benchmark can accept the option and ignore it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        import torch

        if values < 1:
            parser.error(f"--threads is {values}; at least 1 is needed")
        torch.set_num_threads(values)
        setattr(namespace, self.dest, values)


def note(*parts: object) -> None:
    """Print a line of progress to stderr."""
    print(*parts, file=sys.stderr, flush=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Format rows as a Markdown table; numbers are rounded for readability, and nan is an empty cell."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def finish(name: str, figures: Mapping[str, Any], out: Path | None, report: str = "") -> None:
    """Print the figures as the last line of stdout; if a folder was given, write them, the report and the plot."""
    figures = _without_nan(figures)
    if out is not None:
        write_json(out / f"{name}.json", figures)
        if report:
            (out / f"{name}.md").write_text(report.rstrip() + "\n", "utf-8")
        if name in PLOTS:
            _plot(name, figures, out / f"{name}.png")
    print(json.dumps(figures, ensure_ascii=False), flush=True)


def _plot(name: str, figures: Mapping[str, Any], path: Path) -> None:
    """Draw a benchmark's plot, or note why there is none: nothing was measured, or matplotlib is missing."""
    try:
        figure = PLOTS[name](figures)
    except MissingExtraError as error:
        note(f"no plot: {error}")
        return
    if figure is None:
        note("no plot: nothing was measured yet")
        return
    # A plot that is drawn from this file alone says so, and a test compares what is committed.
    about = {"Source": digest(path.parent, name)} if sources(name) == (name,) else None
    plot_style.save(figure, path, about=about)
    note(f"wrote {path}")


def machine() -> dict[str, Any]:
    """Describe the machine and library versions that the figures were measured with."""
    import torch
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": _instructions(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


def _instructions() -> list[str]:
    """Return the CPU's instruction sets that change matmul speed severalfold; empty if PyTorch cannot report them."""
    import torch

    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if known.get(name)]


def records_folder() -> Path:
    """Return the folder in which benchmarks keep their measurements, outside the project."""
    return cache_root() / "benchmarks"


def _without_nan(value: Any) -> Any:
    """Replace nan by None, because JSON has no nan; figures that could not be measured become null."""
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)
