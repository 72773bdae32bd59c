"""What all benchmarks share."""

import pytest
import torch

from benchmarks.contract import parser


def test_threads_are_set_by_the_option_itself(capsys):
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
