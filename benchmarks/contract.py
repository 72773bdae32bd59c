"""What all benchmarks share: options, the deadline, and how figures are reported."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_backbone.loading.cache_folder import cache_root, write_json

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def parser(description: str, *, model: str = "embedded", dtype: str = "float32") -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default=model, help="'embedded', a folder or a Hub id (default: %(default)s)")
    options.add_argument("--dtype", default=dtype, choices=["float32", "bfloat16", "float16", "auto"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--threads", action=_Threads, type=int, default=0, help="torch threads; by default its choice")
    options.add_argument("--out", type=Path, help="a folder for figures, plots and report")
    options.add_argument("--max-minutes", type=float, default=float("inf"), help="stop cleanly after this long")
    return options


class _Threads(argparse.Action):
    """Sets them at once, so that no benchmark can take the option and forget it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        import torch

        if values < 1:
            parser.error(f"--threads is {values}; at least 1 is needed")
        torch.set_num_threads(values)
        setattr(namespace, self.dest, values)


class Deadline:
    """Says when `--max-minutes` are over."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() >= self._end


def note(*parts: object) -> None:
    """A line of progress, on stderr."""
    print(*parts, file=sys.stderr, flush=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table; numbers are rounded for reading."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def finish(name: str, figures: Mapping[str, Any], out: Path | None, report: str = "") -> None:
    """Print the figures as the last line of stdout, and write them and the report if a folder was given."""
    figures = _without_nan(figures)
    if out is not None:
        write_json(out / f"{name}.json", figures)
        if report:
            (out / f"{name}.md").write_text(report.rstrip() + "\n", "utf-8")
    print(json.dumps(figures, ensure_ascii=False), flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
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
    """What the processor has for products, of what changes their speed severalfold; empty where PyTorch can't tell."""
    import torch

    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if known.get(name)]


def records_folder() -> Path:
    """Where unfinished benchmarks keep what they have measured, outside of the project."""
    return cache_root() / "benchmarks"


def _without_nan(value: Any) -> Any:
    """JSON knows no nan: what could not be measured is null."""
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)
