"""The shared parts of all benchmarks."""

import pytest
import torch

from benchmarks.contract import parser


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
