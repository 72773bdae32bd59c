"""Plans of a translator's training: limits and the learning rate."""

import numpy as np
import pytest

from llamaindex_prag.translator.training.plan import TrainingPlan
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"patience": -1}, "patience is -1"),
    ],
)
def test_invalid_plans_are_rejected(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        TrainingPlan(**changes)


def test_the_learning_rate_rises_and_then_falls_to_zero():
    plan = TrainingPlan(steps=100, warm_up=9, learning_rate=1.0)
    rates = [plan.rate(step) for step in range(101)]
    assert np.argmax(rates) == 9
    assert rates[0] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
