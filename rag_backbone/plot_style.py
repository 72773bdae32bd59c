"""One style for every plot: fonts, colours, intervals, reference lines and files.

Colours are those of Okabe and Ito, which people with the common forms of colour blindness can tell apart. A series also
has a marker, a line and a hatch of its own, so that colour is never the only cue. Sizes are chosen for figures that are
6 inches wide and shown at 400 pixels. The background is opaque: figures are legible on light and dark pages.

Needs matplotlib (the `viz` extra), which is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_backbone.extras import needed_for

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE)
MARKERS = ("o", "D", "^", "s", "v", "P")
SIZES = (6.5, 6.0, 7.5, 6.0, 7.5, 7.5)  # of the markers, so that all look equally large
LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 3)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++")
INK, GREY, RULE = "#222222", "#595959", "#DDDDDD"
WIDTH = 6.0
"""Width of a figure in inches."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same on every machine
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "savefig.dpi": 200,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "hatch.linewidth": 0.8,
}
"""Settings of matplotlib."""


def use() -> None:
    """Apply the style to all figures that are created from now on.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    with needed_for("a plot"):
        from matplotlib import rcParams
        from matplotlib.rcsetup import cycler
    rcParams.update(STYLE)
    rcParams["axes.prop_cycle"] = cycler(color=PALETTE, marker=MARKERS, linestyle=LINES)


def new_figure(
    title: str, note: str, *, rows: int = 1, columns: int = 1, height: float = 4.0, **options: Any
) -> tuple[Any, Any]:
    """Return a figure and its axes, as an array of `rows` x `columns`.

    Args:
        title: What is shown or found, in bold above the axes; lines are not wrapped.
        note: What was counted and how, below the axes: n, intervals, the model.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        height: Height of the figure in inches.
        **options: Options of `Figure.subplots`.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    use()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left")
    figure.supxlabel(note, x=0.02, ha="left", fontsize=9.5, color=GREY)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def look(index: int) -> dict[str, Any]:
    """Return the colour, marker and line style of the series with this index."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": SIZES[index % len(SIZES)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
        "linestyle": LINES[index % len(LINES)],
    }


def bar_look(index: int) -> dict[str, Any]:
    """Return the colour, hatch and edge of the bars of the series with this index."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "white",
    }


def intervals(
    axis: Any,
    places: Any,
    values: Any,
    bounds: Any,
    *,
    index: int = 0,
    label: str = "",
    vertical: bool = False,
    line: bool = False,
) -> None:
    """Draw values with their intervals.

    Args:
        axis: The axes.
        places: Positions of the values on the axis of names, (values,).
        values: The values, (values,); None or nan where a value is missing.
        bounds: Lower and upper ends of the intervals, (values, 2).
        index: Index of the series, which gives it its look.
        label: Name of the series in the legend.
        vertical: Whether values are on the y axis.
        line: Whether to connect the values.
    """
    found, ends = np.asarray(values, float), np.asarray(bounds, float).reshape(-1, 2)
    style = look(index)
    whiskers = (axis.vlines if vertical else axis.hlines)(places, ends[:, 0], ends[:, 1], color=style["color"], lw=2.2)
    whiskers.set_gid("interval")
    xy = (places, found) if vertical else (found, places)
    (drawn,) = axis.plot(*xy, **{**style, "linestyle": style["linestyle"] if line else "none"}, label=label or None)
    drawn.set_gid("value")


def reference(axis: Any, value: float, text: str, *, horizontal: bool = False) -> None:
    """Draw a labelled line at a baseline, at chance, or at a limit.

    The label is outside the axes, where it covers nothing: above them for a vertical line, at their right for a
    horizontal one.

    Args:
        axis: The axes.
        value: Where the line is.
        text: Its label; empty if another of the axes that share it has the label.
        horizontal: Whether the line is horizontal.
    """
    line = (axis.axhline if horizontal else axis.axvline)(
        value, color=INK, linestyle=(0, (4, 2)), linewidth=1.2, zorder=1.5, marker="none"
    )
    line.set_gid("reference")
    low, high = axis.get_xlim()
    share = (value - low) / (high - low)
    place: dict[str, Any]
    if horizontal:
        place = {
            "xy": (1, value),
            "xycoords": ("axes fraction", "data"),
            "xytext": (4, 0),
            "ha": "left",
            "va": "center",
        }
    else:
        side = "left" if share < 0.3 else "right" if share > 0.7 else "center"
        place = {"xy": (value, 1), "xycoords": ("data", "axes fraction"), "xytext": (0, 2), "ha": side, "va": "bottom"}
    axis.annotate(text, **place, textcoords="offset points", fontsize=9.5, color=INK, gid="reference")


def name_rows(axis: Any, names: Sequence[str]) -> None:
    """Write names on the y axis, which other axes may share, from top to bottom at 0, 1, 2, ..."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for shared in axis.get_shared_y_axes().get_siblings(axis):
        shared.tick_params(axis="y", length=0)
        shared.grid(visible=False, axis="y")


def legend(axis: Any, *, columns: int = 3, title: str = "", lift: float = 4) -> None:
    """Place the legend of the axes above them, where it cannot cover what is drawn.

    Args:
        axis: The axes.
        columns: Number of columns.
        title: Title of the legend.
        lift: Points between the axes and the legend; labels of vertical lines need 18.
    """
    from matplotlib.transforms import ScaledTranslation

    above = axis.transAxes + ScaledTranslation(0, lift / 72, axis.figure.dpi_scale_trans)
    lines = any(line.get_linestyle() != "None" for line in axis.get_legend_handles_labels()[0])
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=above,
        ncols=columns,
        borderaxespad=0,
        borderpad=0,
        title=title or None,
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
        handlelength=2.6 if lines else 1,
    )


def save(figure: Any, path: Path, *, about: Mapping[str, str] | None = None) -> None:
    """Write a figure as PNG.

    Args:
        figure: The figure.
        path: The file; missing folders are created.
        about: Text to store in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None, **(about or {})})
