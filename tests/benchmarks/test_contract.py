"""What all benchmarks share."""

import pytest
import torch

from benchmarks.contract import parser


def test_threads_are_set_by_the_option_itself(capsys):
    before = torch.get_num_threads()
    try:
        assert parser("Any.").parse_args(["--threads", "1"]).threads == 1
        assert torch.get_num_threads() == 1
        with pytest.raises(SystemExit):
            parser("Any.").parse_args(["--threads", "0"])
        assert "at least 1" in capsys.readouterr().err
    finally:
        torch.set_num_threads(before)
