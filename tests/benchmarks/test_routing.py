"""The shares of rightly routed questions, worked out by hand."""

import numpy as np
import pytest

from benchmarks.routing import routed
from benchmarks.single_hop import Fact

POOL = ["Stone bridges of the valley are old.", "The ferry of Vold was built in 1973.", "Bread is baked in ovens."]
TITLES = dict.fromkeys(POOL, "")


def fact(passage, question):
    return Fact("squad", "", passage, question, ("x",))


def test_shares_are_those_of_the_questions():
    facts = [fact(POOL[1], "When was the ferry of Vold built?"), fact(POOL[2], "Where is bread baked?")]
    scores = np.array([[0.6, 0.5, 0.1], [0.9, 0.8, 0.1]])
    two = routed("made", 2, facts, POOL, TITLES, scores)
    assert (two["recall"], two["retrieval"], two["lexical"]) == (0.5, 0.0, 0.0)  # standardised, two scores cancel out
    three = routed("made", 3, facts, POOL, TITLES, scores)
    assert (three["recall"], three["retrieval"], three["lexical"], three["difference"]) == (1.0, 0.0, 0.5, 0.5)
    assert three["low"] <= three["difference"] <= three["high"]
    assert routed("made", 1, facts, POOL, TITLES, scores)["lexical"] == pytest.approx(0.0)
