"""The shared parts of all benchmarks."""

import json

import pytest
import torch
from PIL import Image

from benchmarks.contract import finish, parser, table
from benchmarks.redraw import RESULTS, digest


def test_the_threads_option_sets_the_threads_immediately(capsys):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            assert parser("Any.").parse_args(["--threads", str(threads)]).threads == threads
            assert torch.get_num_threads() == threads
        with pytest.raises(SystemExit):
            parser("Any.").parse_args(["--threads", "0"])
        assert "at least 1" in capsys.readouterr().err
    finally:
        torch.set_num_threads(before)


def test_what_was_not_measured_is_an_empty_cell():
    rows = [{"method": "single", "f1": 0.25, "seconds": float("nan"), "searches": None}]
    assert table(rows, ["method", "f1", "seconds", "searches"]).splitlines()[-1] == "| single | 0.250 |  |  |"


def test_a_plot_says_which_figures_it_was_drawn_from(tmp_path):
    figures = json.loads((RESULTS / "calibrated.json").read_text("utf-8"))
    finish("calibrated", figures, tmp_path)
    with Image.open(tmp_path / "calibrated.png") as image:
        assert image.text["Source"] == digest(tmp_path, "calibrated")
