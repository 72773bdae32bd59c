"""Reading and changing the threshold of a trigger."""

from dataclasses import dataclass

import pytest

from langgraph_dynrag.triggers import ETC, RIND, AnyOf, BaseTrigger, Entropy, Never, TokenProbability
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


def test_a_value_that_the_trigger_does_not_accept_is_refused():
    with pytest.raises(ConfigurationError, match="theta is 2"):
        with_threshold(TokenProbability(), 2.0)


def test_thresholds_are_read_and_changed_through_a_field_or_method():
    class Own:
        def __init__(self, threshold):
            self.threshold = threshold

        def with_threshold(self, value):
            return Own(value)

    for trigger in (TokenProbability(0.3), Entropy(0.3), RIND(0.3), ETC(0.3), Own(0.3)):
        assert threshold_of(trigger) == 0.3
        changed = with_threshold(trigger, 0.4)
        assert (type(changed), threshold_of(changed), threshold_of(trigger)) == (type(trigger), 0.4, 0.3)
    assert threshold_of(Never()) is None
    with pytest.raises(ConfigurationError, match=r"Never\(\) has no threshold; TokenProbability"):
        with_threshold(Never(), 1)
    with pytest.raises(ConfigurationError, match="its parts may"):
        with_threshold(AnyOf(TokenProbability(), Entropy()), 1)
