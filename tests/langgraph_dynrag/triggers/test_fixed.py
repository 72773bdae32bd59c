"""Triggers that read no signals."""

import pytest

from langgraph_dynrag.triggers import EveryNTokens, EverySentence, Never, Once
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view


@pytest.mark.parametrize(
    ("trigger", "unit", "before", "judged"),
    [
        (Never(), "all", False, False),
        (Once(), "all", True, False),
        (EverySentence(), "sentence", False, True),
        (EveryNTokens(7), "7 tokens", False, True),
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
