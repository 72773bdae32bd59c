"""Each plot of the documentation, drawn from its committed figures: what it shows, and that it can be read."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks.contract import finish
from benchmarks.plots import PLOTS
from benchmarks.plots.dynamic_rag import LEARNED
from benchmarks.plots.parametric_rag import CHOICES
from benchmarks.redraw import RESULTS, digest, drawn, main, read
from tests.docs.pages import DOCS
from tests.drawn import Drawn, assert_distinct, assert_legible

VERTICAL = ("context_length", "documents", "trigger_sensitivity")
LEARNT = ("translator_learning_squad", "translator_learning_musique")


def of_rows(rows, name, low="low", high="high"):
    return [(row[low], row[name], row[high]) for row in rows]


def of_bounds(rows, name, bounds):
    return [(row[bounds][0], row[name], row[bounds][1]) for row in rows]


def of_conflicts(rows):
    return [(float(row["area interval"][:4]), row["area"], float(row["area interval"][-4:])) for row in rows]


def of_calibrated(figures):
    rows = [row for of in figures["data"].values() for row in of]
    return of_bounds(rows, "f1_over_single", "f1_over_single_interval")


EXPECTED = {
    "calibrated": of_calibrated,
    "calibrated_1.5b_signals": of_calibrated,
    "compare_methods": lambda f: [i for rows in f["data"].values() for i in of_bounds(rows, "f1", "f1_interval")],
    "concurrency": lambda f: [],
    "conflicts": lambda f: of_conflicts(f["rows"]),
    "context_length": lambda f: of_rows([row for row in f["rows"] if row["gold"] == "all"], "f1"),
    "documents": lambda f: of_rows([r for r in f["rows"] if r["way"].split(", right")[0] in CHOICES], "f1"),
    "forgetting": lambda f: of_rows(f["rows"], "drop"),
    "knowledge_fidelity": lambda f: of_rows([r for m in ("distill", "prag") for r in f[m]["conditions"]], "f1"),
    "learned_trigger": lambda f: of_bounds(
        [row for rows in f["judged"].values() for row in rows if row["trigger"] in LEARNED], "auc", "auc_interval"
    ),
    "queries": lambda f: of_bounds(
        [c for by in ("by_hop", "by_position") for cells in f[by]["all"].values() for c in cells.values()],
        "value",
        "interval",
    ),
    "scalability": lambda f: of_rows(f["rows"], "f1"),
    "trigger_sensitivity": lambda f: of_bounds(f["points"], "f1", "f1_interval"),
    "triggers": lambda f: of_bounds([*f["triggers"]["all"], *f["triggers"]["all, statements"]], "auc", "auc_interval"),
}
"""All intervals of a file of figures, as (low, value, high)."""

REFERENCES = {
    "calibrated": (0, 0, 0),
    "calibrated_1.5b_signals": (0, 0, 0),
    "compare_methods": (0.3069, 0.2490),
    "concurrency": (1,),
    "conflicts": (0.5, 1.2308),
    "context_length": (55.8249,),
    "documents": (9.8190, 9.8190),
    "forgetting": (0, 0, 0),
    "knowledge_fidelity": (6.9381, 56.8155, 5.5556, 60.7586),
    "learned_trigger": (0.5,),
    "queries": (0.5642, 0.5642),
    "scalability": (0.1498,),
    "translator_learning": (6.1145, 0),
    "trigger_sensitivity": (0.2524, 0.2524),
    "triggers": (0.5, 0.5),
}
COUNTS = {
    "calibrated": ["n = 75", "n = 70"],
    "calibrated_1.5b_signals": ["n = 39", "n = 38"],
    "compare_methods": ["n = 50", "3 questions"],
    "concurrency": ["n = 16"],
    "conflicts": ["n = 10 + 20", "n = 12 + 22", "n = 12", "n = 10"],
    "context_length": ["n = 18", "18 to 54 answers", "7 timed"],
    "documents": ["n = 8 to 100 questions", "40 passages"],
    "forgetting": ["n = 40"],
    "knowledge_fidelity": ["n = 452", "n = 202", "168 passages", "54 passages"],
    "learned_trigger": ["n = 237", "n = 251", "n = 215", "n = 202", "n = 905"],
    "queries": ["n = 59", "n = 15", "n = 39", "n = 22", "n = 13"],
    "scalability": ["n = 16"],
    "translator_learning": ["n = 100 passages"],
    "trigger_sensitivity": ["n = 30", "2 of them timed"],
    "triggers": ["n = 357", "n = 255", "n = 76 and 54"],
}


@pytest.fixture(scope="module")
def shown():
    """Draw each plot once."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = Drawn(drawn(name, read(RESULTS, name)))
        return kept[name]

    return of


def test_every_plot_of_the_documentation_is_known():
    assert {path.stem for path in RESULTS.glob("*.png")} == set(PLOTS) == set(COUNTS) == set(REFERENCES)


@pytest.mark.parametrize("name", PLOTS)
def test_labels_overlap_nothing_and_are_legible_when_small(shown, name):
    assert_legible(shown(name))
    assert_distinct(shown(name))


@pytest.mark.parametrize("name", EXPECTED)
def test_all_values_and_intervals_of_the_file_are_drawn(shown, name):
    expected = EXPECTED[name](read(RESULTS, name)[name])
    found = shown(name).intervals(vertical=name in VERTICAL)
    np.testing.assert_allclose(sorted(found), sorted(expected))


def test_the_differences_between_adapters_are_drawn_with_their_intervals(shown):
    files = read(RESULTS, "translator_learning")
    rows = [files[f][kind][d] for f in LEARNT for kind in ("shared", "dyprag") for d in ("other - own", "mean - own")]
    np.testing.assert_allclose(sorted(shown("translator_learning").intervals()), sorted(of_rows(rows, "mean")))


def test_every_judged_pair_is_a_point_of_its_own(shown):
    by_kind = read(RESULTS, "conflicts")["conflicts"]["by_kind"]
    axis = shown("conflicts").figure.axes[1]
    points = [line for line in axis.get_lines() if line.get_gid() is None]
    assert sorted(float(line.get_xdata()[0]) for line in points) == sorted(s for of in by_kind.values() for s in of)
    centres = np.array([axis.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in points])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(len(points), 1)]
    assert apart.min() > 3  # pixels of 100 per inch


@pytest.mark.parametrize("name", PLOTS)
def test_a_baseline_is_drawn_and_labelled(shown, name):
    values, labels = shown(name).references
    assert sorted(values) == pytest.approx(sorted(REFERENCES[name]), abs=1e-4)
    assert any(labels)


@pytest.mark.parametrize("name", PLOTS)
def test_how_many_were_counted_is_written_and_what_the_axes_measure(shown, name):
    written = "\n".join(shown(name).texts)
    for count in COUNTS[name]:
        assert re.search(rf"(?<!\w){re.escape(count)}(?!\d)", written), count
    assert "interval" in written
    for column in zip(*_grid(shown(name).figure), strict=True):
        assert column[-1].get_xlabel()
    for row in _grid(shown(name).figure):
        names_rows = not all(re.fullmatch(r"[-−\d.$\\{}a-z^]*", t.get_text()) for t in row[0].get_yticklabels())
        assert row[0].get_ylabel() or names_rows


@pytest.mark.parametrize("name", PLOTS)
def test_the_committed_plot_was_drawn_from_the_committed_figures(name):
    with Image.open(RESULTS / f"{name}.png") as image:
        assert image.text["Source"] == digest(RESULTS, name)
        assert image.width == 1200
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[:, :, 3] == 255).all()
    edge = np.concatenate([pixels[:8].reshape(-1, 4), pixels[-8:].reshape(-1, 4)])
    assert (edge == 255).all()


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_embedded_in_a_page_with_a_description(name):
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    described = re.findall(rf"!\[([^\]]*)\]\(results/{name}\.png\)", pages)
    assert described
    assert all(len(text.split()) >= 3 for text in described)


def test_a_run_draws_its_plot_and_one_that_measured_nothing_does_not(tmp_path, capsys):
    figures = read(RESULTS, "forgetting")["forgetting"]
    finish("forgetting", figures, tmp_path / "some")
    assert (tmp_path / "some" / "forgetting.png").exists()
    finish("forgetting", {**figures, "rows": []}, tmp_path / "none")
    assert not (tmp_path / "none" / "forgetting.png").exists()
    assert "nothing was measured yet" in capsys.readouterr().err


def test_without_matplotlib_a_run_keeps_its_figures_and_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finish("forgetting", read(RESULTS, "forgetting")["forgetting"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["forgetting.json"]
    assert "pip install 'dynprag[viz]'" in capsys.readouterr().err


EMPTY = {
    "calibrated": {"data": {}},
    "calibrated_1.5b_signals": {"data": {}},
    "compare_methods": {"data": {}},
    "concurrency": {"rows": []},
    "conflicts": {"complete": False, "rows": []},
    "context_length": {"rows": []},
    "documents": {"rows": []},
    "forgetting": {"rows": []},
    "knowledge_fidelity": {},
    "learned_trigger": {"judged": {}},
    "queries": {"formulators": {"all": []}},
    "scalability": {"rows": []},
    "translator_learning": {"runs": []},
    "trigger_sensitivity": {"points": []},
    "triggers": {"triggers": {"all": []}},
}


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_drawn_of_nothing(name):
    assert PLOTS[name](EMPTY[name]) is None


def test_one_run_of_the_translators_learning_is_a_plot():
    figures = json.loads((RESULTS / "translator_learning_squad.json").read_text("utf-8"))
    found = Drawn(PLOTS["translator_learning"](figures))
    assert_legible(found)
    assert len(found.intervals()) == 4


def test_null_is_left_out():
    figures = read(RESULTS, "compare_methods")["compare_methods"]
    row = {**figures["data"]["2wikimultihopqa_dev_100"][0], "f1": None, "f1_interval": [None, None], "timed": 0}
    found = Drawn(PLOTS["compare_methods"]({**figures, "data": {"hotpotqa": [row, row]}}))
    assert len(found.figure.axes) == 1
    assert np.isnan(found.intervals()).all()


def test_plots_are_drawn_again_by_one_command(tmp_path, monkeypatch, capsys):
    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("sys.argv", ["redraw", "concurrency", "--results", str(tmp_path)])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "concurrency.png")
    assert [path.name for path in tmp_path.glob("*.png")] == ["concurrency.png"]
    monkeypatch.setattr("sys.argv", ["redraw", "nonsense"])
    with pytest.raises(SystemExit):
        main()
    assert "there is no plot nonsense" in capsys.readouterr().err


def _grid(figure):
    """Return the axes by row and column."""
    spec = figure.axes[0].get_gridspec()
    return np.array(figure.axes, object).reshape(spec.nrows, spec.ncols)
