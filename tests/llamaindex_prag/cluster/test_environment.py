"""A worker that would train other adapters than the driver is told apart, with both values."""

import torch

from llamaindex_prag.cluster.environment import Environment, versions

OWN = {"Python": "3.11.9", "torch": "2.13.0"}
DRIVER = Environment("", "", OWN, "a" * 64)


def test_an_equal_worker_has_no_differences():
    assert DRIVER.differences(Environment("n", "h", dict(OWN), "a" * 64)) == []


def test_other_versions_and_another_model_are_named():
    found = DRIVER.differences(Environment("n", "h", {"Python": "3.12.1"}, "b" * 64))
    assert found[0] == "it has Python 3.12.1, the driver 3.11.9"
    assert found[1] == "it has torch not installed, the driver 2.13.0"
    assert "bbbbbbbbbbbb…, the driver's aaaaaaaaaaaa…" in found[2]


def test_a_model_that_cannot_be_loaded_is_named_rather_than_its_missing_fingerprint():
    (found,) = DRIVER.differences(Environment("n", "h", OWN, problem="there is no model folder /m"))
    assert found == "its model could not be loaded: there is no model folder /m"


def test_versions_are_those_of_this_process():
    assert versions()["torch"] == torch.__version__
    assert "not installed" not in versions().values()
