"""Draw the plots of the benchmarks again from their figures, without running anything: `python -m benchmarks.redraw`.

A plot `NAME.png` is drawn from `NAME.json` in the same folder; that of the translators' learning from three files: the
curves of the trainings, and the evaluations on two data sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plots import PLOTS, learning
from rag_backbone import plot_style

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LEARNING = ("translator_curves", "translator_learning_squad", "translator_learning_musique")


def sources(name: str) -> tuple[str, ...]:
    """Return the names of the files of figures that a plot is drawn from."""
    return LEARNING if name == "translator_learning" else (name,)


def read(folder: Path, name: str) -> dict[str, Mapping[str, Any]]:
    """Return the figures of a plot, by the names of their files."""
    return {source: json.loads((folder / f"{source}.json").read_text("utf-8")) for source in sources(name)}


def drawn(name: str, files: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the figure of a plot, drawn from the figures of its files."""
    if name != "translator_learning":
        return PLOTS[name](files[name])
    curves, *evaluations = files.values()
    return learning(curves, {of["data"]: of for of in evaluations})


def digest(folder: Path, name: str) -> str:
    """Return what a plot's file says about its sources: their names, and a SHA-256 over their bytes."""
    joined = b"".join((folder / f"{source}.json").read_bytes() for source in sources(name))
    return f"{', '.join(sources(name))}: {hashlib.sha256(joined).hexdigest()}"


def main() -> None:
    """Draw the plots of a folder."""
    options = argparse.ArgumentParser(description="Draw the plots again from their figures; runs no model.")
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PLOTS)}; default: all")
    options.add_argument("--results", type=Path, default=RESULTS, help="the folder (default: %(default)s)")
    args = options.parse_args()
    if unknown := sorted(set(args.names) - set(PLOTS)):
        options.error(f"there is no plot {unknown[0]}; there are {', '.join(PLOTS)}")
    for name in args.names or PLOTS:
        figure = drawn(name, read(args.results, name))
        path = args.results / f"{name}.png"
        plot_style.save(figure, path, about={"Source": digest(args.results, name)})
        print(path)


if __name__ == "__main__":
    main()
