"""The style of the plots."""

import sys

import numpy as np
import pytest

from rag_backbone import plot_style
from rag_backbone.errors import MissingExtraError
from tests.drawn import Drawn, assert_distinct, assert_legible


def figure_of(names, title="Title", **options):
    figure, axes = plot_style.new_figure(title, "n = 3", **options)
    plot_style.name_rows(axes[0][0], names)
    return figure, axes[0][0]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plot_style.use, lambda: plot_style.new_figure("a", "b")):
        with pytest.raises(MissingExtraError, match=r"a plot needs matplotlib.*dynprag\[viz\]"):
            draw()


def test_six_series_differ_in_colour_marker_and_line():
    looks = [plot_style.look(i) for i in range(6)]
    for name in ("color", "marker", "linestyle"):
        assert len({look[name] for look in looks}) == 6
    assert len({plot_style.bar_look(i)["hatch"] for i in range(6)}) == 6
    assert plot_style.look(6) == looks[0]


def test_intervals_lines_and_counts_are_drawn_where_they_belong():
    figure, axis = figure_of(["one", "two", "three"])
    plot_style.intervals(axis, range(3), [1, None, 3], [(0.5, 2), (None, None), (3, 3)], label="a")
    plot_style.intervals(axis, range(3), [2, 2, 2], [(1, 3)] * 3, index=1, label="b")
    plot_style.reference(axis, 1.5, "chance")
    plot_style.legend(axis, lift=18)
    found = Drawn(figure)
    expected = [(0.5, 1, 2), (np.nan, np.nan, np.nan), (3, 3, 3), *[(1, 2, 3)] * 3]
    np.testing.assert_allclose(found.intervals(), expected)
    assert found.references == ([1.5], ["chance"])
    assert {"one", "two", "three", "a", "b", "chance", "Title", "n = 3"} <= set(found.texts)
    assert_legible(found)
    assert_distinct(found)


def test_a_horizontal_line_is_labelled_beside_the_axes():
    figure, axes = plot_style.new_figure("Title", "n = 2")
    axis = axes[0][0]
    plot_style.intervals(axis, [0, 1], [1, 2], [(0, 2), (1, 3)], vertical=True, line=True)
    plot_style.reference(axis, 1.5, "chance", horizontal=True)
    found = Drawn(figure)
    assert found.intervals(vertical=True) == [(0, 1, 2), (1, 2, 3)]
    assert found.references == ([1.5], ["chance"])
    assert_legible(found)


def test_a_file_says_what_it_was_drawn_from_and_has_an_opaque_background(tmp_path):
    from PIL import Image

    figure, _ = figure_of(["one"])
    plot_style.save(figure, tmp_path / "new" / "a.png", about={"Source": "a.json"})
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.text == {"Source": "a.json"}
        assert np.asarray(image.convert("RGBA"))[0, 0].tolist() == [255] * 4


# ---------------------------------------------------------------------- faults that the tests of plots find


def test_overlapping_names_are_found():
    figure, _ = figure_of([f"name {i}" for i in range(60)], height=3)
    with pytest.raises(AssertionError, match="name"):
        assert_legible(Drawn(figure))


def test_a_title_that_is_cut_off_is_found():
    figure, _ = figure_of(["one"], "A title that has far more words than fit on one line of a narrow figure")
    with pytest.raises(AssertionError, match="A title"):
        assert_legible(Drawn(figure))


def test_a_text_that_covers_what_is_drawn_is_found():
    figure, axis = figure_of(["one"])
    axis.text(0.5, 0, "covers")
    with pytest.raises(AssertionError, match="covers"):
        assert_legible(Drawn(figure))


def test_small_text_is_found():
    figure, axis = figure_of(["one"])
    axis.set_xlabel("small", fontsize=8)
    with pytest.raises(AssertionError, match="small"):
        assert_legible(Drawn(figure))


def test_a_missing_glyph_is_found():
    figure, _ = figure_of(["\U0001f9ff"])
    with pytest.raises(UserWarning, match="Glyph"):
        Drawn(figure)


def test_series_that_differ_in_colour_only_are_found():
    figure, axis = figure_of(["one"])
    for colour in (plot_style.BLUE, plot_style.GREEN):
        axis.plot([0, 1], [0, 0], color=colour, marker="o", linestyle="-", label=colour)
    with pytest.raises(AssertionError):
        assert_distinct(Drawn(figure))
