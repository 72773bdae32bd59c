"""Tests of the choice between reading, training and translating: the break-even rule, and measured costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.placement.auto_policy import AutoPolicy, Demand
from llamaindex_prag.placement.costs import Costs
from rag_backbone.errors import ConfigurationError

# Reading 100 tokens takes 0.2 s, training them 10 s: they break even at the 51st question.
COSTS = Costs(read=0.002, activate=0.001, train=0.1)


WITH_TRANSLATOR = Costs(read=0.002, activate=0.001, train=0.1, represent=0.002, translate=0.02)
seconds = st.floats(1e-4, 10.0)


def ways(policy, costs, questions, tokens=100):
    """Return the mode chosen at each question; adapters and representations are kept once made."""
    found, trained, represented = [], False, False
    for n in range(questions):
        way = policy.choose(Demand(tokens, n, trained, represented), costs).way
        trained |= way in ("trained", "combined")
        represented |= way == "translated"
        found.append(way)
    return found


def test_a_document_is_read_until_reading_has_cost_as_much_as_training():
    found = ways(AutoPolicy(), COSTS, 60)
    # By hand: m (0.2 - 0.001) >= 10 holds first at m = 51.
    assert found == ["context"] * 50 + ["trained"] * 10


def test_documents_with_many_expected_retrievals_are_trained_at_once_and_others_are_not():
    assert ways(AutoPolicy(expected=1000), COSTS, 1) == ["trained"]
    assert ways(AutoPolicy(expected=3), COSTS, 60) == ["context"] * 60


def test_the_required_quality_rules_out_modes():
    assert ways(AutoPolicy(quality=0.9), COSTS, 100) == ["context"] * 100
    better = {"context": 0.8, "combined": 1.0, "trained": 0.7}
    assert ways(AutoPolicy(quality=0.9, qualities=better), COSTS, 1) == ["combined"]
    with pytest.raises(ConfigurationError, match=r"best mode has 1\.0"):
        AutoPolicy(quality=1.1)


def test_the_budget_limits_how_long_one_question_waits():
    policy = AutoPolicy(budget=1.0, expected=1000)
    assert ways(policy, COSTS, 3) == ["context"] * 3  # training would take 10 s now
    assert policy.choose(Demand(100, 5, trained=True), COSTS).way == "trained"
    tight = AutoPolicy(budget=0.1).choose(Demand(100, 0), COSTS)
    assert (tight.way, tight.why) == ("context", "no mode fits 0.1 s; this one takes 0.2 s")


def test_a_translator_is_used_only_if_its_quality_is_given():
    qualities = {"context": 1.0, "trained": 0.7, "translated": 0.5}
    policy = AutoPolicy(qualities=qualities)
    assert ways(policy, WITH_TRANSLATOR, 3) == ["context", "translated", "translated"]
    assert ways(AutoPolicy(qualities=qualities, quality=0.6), WITH_TRANSLATOR, 3) == ["context"] * 3
    assert ways(AutoPolicy(), WITH_TRANSLATOR, 3) == ["context"] * 3
    assert policy.choose(Demand(100, 9), COSTS).way == "context"  # there is no translator


@given(read=seconds, activate=seconds, train=seconds, tokens=st.integers(1, 500), questions=st.integers(1, 300))
def test_the_cost_is_at_most_twice_that_of_knowing_the_future(read, activate, train, tokens, questions):
    costs = Costs(read=read, activate=activate, train=train)
    found = ways(AutoPolicy(qualities={"context": 1.0, "trained": 1.0}), costs, questions, tokens)
    spent = sum(costs.each(way, tokens) for way in found) + ("trained" in found) * costs.once("trained", tokens)
    only = {way: costs.once(way, tokens) + questions * costs.each(way, tokens) for way in ("context", "trained")}
    assert spent <= 2 * min(only.values()) + 1e-9


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"expected": float("inf")}, "expected is inf"),
        ({"qualities": {"guessed": 1.0}}, "qualities names guessed"),
    ],
)
def test_invalid_policies_are_rejected(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        AutoPolicy(**options)
