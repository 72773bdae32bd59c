"""Self-RAG's judgements as numbers, against hand computations and NumPy."""

import json
import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.reflection.scores import (
    Critique,
    SegmentScore,
    Weights,
    likeliest,
    likelihood,
    normalised,
    score,
    utility,
)


def test_a_score_matches_a_hand_computation():
    critique = Critique(
        relevance={"relevant": 0.8, "irrelevant": 0.2},
        support={"full": 0.5, "partial": 0.3, "none": 0.2},
        utility={"1": 0.1, "2": 0.1, "3": 0.2, "4": 0.2, "5": 0.4},
    )
    found = score([math.log(0.5), math.log(0.125)], critique, Weights())
    assert found.likelihood == pytest.approx(0.25)  # the square root of 0.5 x 0.125
    assert found.relevance == pytest.approx(0.8)
    assert found.support == pytest.approx(0.65)  # 0.5 + 0.3 / 2
    assert found.utility == pytest.approx(0.35)  # -0.1 - 0.05 + 0.1 + 0.4
    assert found.total == pytest.approx(0.25 + 0.8 + 0.65 + 0.5 * 0.35)
    assert score([], critique, Weights(2, 0, 1)).total == pytest.approx(1.6 + 0.35)


def test_a_missing_judgement_counts_as_zero_and_a_poor_utility_is_negative():
    assert score([0.0], Critique(), Weights()) == SegmentScore(1.0, 0.0, 0.0, 0.0, 1.0)
    assert utility({"1": 1.0}) == -1
    assert score([0.0], Critique(utility={"1": 0.5, "3": 0.5}), Weights()).total == pytest.approx(1 - 0.25)


_LOGITS = st.floats(-60, 0)


@given(
    st.lists(_LOGITS, min_size=1, max_size=9),
    st.lists(_LOGITS, min_size=2, max_size=2),
    st.lists(_LOGITS, min_size=3, max_size=3),
    st.lists(_LOGITS, min_size=5, max_size=5),
    st.lists(st.floats(0, 5), min_size=3, max_size=3),
)
def test_scores_match_numpy(tokens, rel, sup, use, weights):
    e_rel, e_sup, e_use = (np.exp(np.array(x, np.longdouble)) for x in (rel, sup, use))
    expected = (
        np.exp(np.mean(np.array(tokens, np.longdouble)))
        + weights[0] * e_rel[0] / e_rel.sum()
        + weights[1] * (e_sup @ [1, 0.5, 0]) / e_sup.sum()
        + weights[2] * (e_use @ np.array([-1, -0.5, 0, 0.5, 1])) / e_use.sum()
    )
    critique = Critique(
        normalised(dict(zip(("relevant", "irrelevant"), rel, strict=True))),
        normalised(dict(zip(("full", "partial", "none"), sup, strict=True))),
        normalised(dict(zip("12345", use, strict=True))),
    )
    assert score(tokens, critique, Weights(*weights)).total == pytest.approx(float(expected), abs=1e-9)


def test_answers_that_cannot_occur_are_equally_likely():
    assert normalised({"yes": -math.inf, "no": -math.inf}) == {"yes": 0.5, "no": 0.5}
    assert likelihood([]) == 0.0
    assert likeliest({"a": 0.2, "b": 0.4, "c": 0.4}) == "b"


def test_a_critique_of_any_mappings_is_plain_data_in_the_state():
    """A reflector of one's own may return mappings that neither JSON nor a checkpointer can hold."""
    state = Critique(relevance=MappingProxyType({"yes": 0.75, "no": 0.25})).to_state()
    assert json.loads(json.dumps(state)) == {"relevance": {"yes": 0.75, "no": 0.25}, "support": None, "utility": None}
