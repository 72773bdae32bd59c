"""Reading and changing the threshold of a trigger."""

from dataclasses import dataclass

import pytest

from langgraph_dynrag.triggers import ETC, RIND, AnyOf, BaseTrigger, Entropy, EverySentence, TokenProbability
from langgraph_dynrag.triggers.threshold import threshold_of, with_threshold
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True)
class Scaled(BaseTrigger):
    """Keeps its threshold in other units."""

    percent: float

    @property
    def threshold(self):
        return self.percent / 100

    def with_threshold(self, value):
        return Scaled(value * 100)

    def judge(self, view):
        raise AssertionError


@pytest.mark.parametrize(
    "trigger", [TokenProbability(0.5), Entropy(1.5), RIND(1.2, "reference"), ETC(0.25), Scaled(50.0)]
)
def test_a_copy_has_the_new_threshold_and_everything_else_of_the_trigger(trigger):
    before = repr(trigger)
    changed = with_threshold(trigger, 0.75)
    assert threshold_of(changed) == 0.75
    assert with_threshold(changed, threshold_of(trigger)) == trigger
    assert repr(trigger) == before


def test_a_trigger_without_a_threshold_is_named_with_those_that_have_one():
    assert threshold_of(EverySentence()) is None
    with pytest.raises(ConfigurationError, match="EverySentence.*has no threshold; TokenProbability, Entropy"):
        with_threshold(EverySentence(), 0.5)
    both = AnyOf(TokenProbability(), Entropy())
    assert threshold_of(both) is None
    with pytest.raises(ConfigurationError, match="has no threshold; its parts may have one"):
        with_threshold(both, 0.5)


def test_a_value_that_the_trigger_does_not_accept_is_refused():
    with pytest.raises(ConfigurationError, match="theta is 2"):
        with_threshold(TokenProbability(), 2.0)
