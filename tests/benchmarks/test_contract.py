"""The shared parts of all benchmarks."""

import pytest
import torch

from benchmarks.contract import parser, table


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
