"""What the plots of the benchmarks share: rows of figures as arrays and intervals, and usual names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rag_backbone import plot_style as style

Figures = Mapping[str, Any]
DATA = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "squad": "SQuAD", "musique": "MuSiQue"}
SPAN = "Lines: 95 % bootstrap intervals."


def numbers(rows: Sequence[Figures], name: str) -> Any:
    """Return a measure of all rows, with nan for null."""
    return np.array([row[name] for row in rows], float)


def draw_rows(
    axis: Any, places: Any, rows: Sequence[Figures], name: str, bounds: str | tuple[str, str], **options: Any
) -> None:
    """Draw a measure of rows with its intervals, which are in one field or in two."""
    spans = [row[bounds] if isinstance(bounds, str) else (row[bounds[0]], row[bounds[1]]) for row in rows]
    style.intervals(axis, places, numbers(rows, name), spans, **options)


def dodged(series: int) -> Any:
    """Return offsets at which several series can share one place without covering each other."""
    return (np.arange(series) - (series - 1) / 2) * min(0.2, 0.6 / series)


def counted(values: Any) -> str:
    """Write the numbers that occur, such as "50" or "18 to 54"."""
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def model_of(figures: Figures) -> str:
    """Return the model and the type of its weights."""
    return f"{figures['model']}, {figures['dtype']}"


def data_name(name: str) -> str:
    """Return the usual name of the data set of a file."""
    return next((usual for start, usual in DATA.items() if name.lower().startswith(start)), name)
