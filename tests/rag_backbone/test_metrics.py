"""Measures of answers."""

import pytest

from rag_backbone.metrics import f1


def test_f1_follows_squad():
    assert f1("The Patient Anna.", ["patient anna"]) == 1
    assert f1("Anna", ["the Patient Anna"]) == pytest.approx(2 / 3)
    assert f1("yes, it is", ["yes"]) == 0
    assert f1("", ["a"]) == 1.0  # as in the published script: both are empty after normalisation
    assert f1("x", []) == 0
