"""Triggers that read no signals."""

import pytest

from langgraph_dynrag.triggers import AnyOf, EveryNTokens, EverySentence, Never, Once, ReasoningSteps, WholeAnswers
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view


@pytest.mark.parametrize(
    ("trigger", "unit", "before", "judged"),
    [
        (Never(), "all", False, False),
        (Once(), "all", True, False),
        (EverySentence(), "sentence", False, True),
        (EveryNTokens(7), "7 tokens", False, True),
        (ReasoningSteps(2), "sentence", False, True),
    ],
)
def test_when_a_fixed_trigger_retrieves(trigger, unit, before, judged):
    first = trigger.before("Who?")
    verdict = trigger.judge(view("It was Joan.", {"Joan": 0.01}))
    assert str(trigger.unit) == unit
    assert (first is not None and first.retrieve) is before
    assert verdict.retrieve is judged
    # Whatever was written is kept: no token is at fault.
    assert verdict.position is None
    assert trigger.needs == frozenset()


def test_an_interval_of_no_tokens_is_refused():
    with pytest.raises(ConfigurationError, match="n is 0; at least 1"):
        EveryNTokens(0)


@pytest.mark.parametrize(
    ("accepted", "retrieve", "ends"), [("", True, False), ("One is known. ", True, False), ("One. Two. ", False, True)]
)
def test_reasoning_ends_after_its_steps_instead_of_searching(accepted, retrieve, ends):
    verdict = ReasoningSteps(3).judge(view("It was Joan.", accepted=accepted))
    assert (verdict.retrieve, verdict.ends, verdict.position) == (retrieve, ends, None)
    both = AnyOf(ReasoningSteps(3), EverySentence()).judge(view("It was Joan.", accepted=accepted))
    assert (both.retrieve, both.ends) == (True, ends)


@pytest.mark.parametrize(("rounds", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_whole_answers_are_discarded_until_the_last_one(rounds, again):
    trigger = WholeAnswers(3)
    verdict = trigger.judge(view("It was Joan.", rounds=rounds))
    assert (verdict.retrieve, verdict.position) == (again, 0 if again else None)
    assert verdict.reason == f"answer {min(rounds, 3)} of 3 is written"
    assert str(trigger.unit) == "all"
    assert trigger.before("Who?").retrieve


def test_numbers_of_steps_and_answers_are_at_least_one():
    with pytest.raises(ConfigurationError, match="steps is 0; at least 1"):
        ReasoningSteps(0)
    with pytest.raises(ConfigurationError, match="iterations is 0; at least 1"):
        WholeAnswers(0)
