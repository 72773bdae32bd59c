"""The limits of a run."""

import math

import pytest

from langgraph_dynrag import Budgets
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retrievals": -1}, "budget retrievals is -1; at least 0"),
        ({"tokens": 0}, "budget tokens is 0; at least 1"),
        ({"closing_tokens": 0}, "budget closing_tokens is 0"),
        ({"reasoning_tokens": -1}, "budget reasoning_tokens is -1"),
        ({"fruitless_replies": -1}, "budget fruitless_replies is -1"),
        ({"identical_retrievals": -1}, "budget identical_retrievals is -1"),
        ({"seconds": 0}, "budget seconds is 0; more than 0"),
        ({"seconds": math.nan}, "budget seconds is nan"),
        ({"tokens": 2.5}, r"budget tokens is 2.5 \(float\); a whole number"),
        ({"token": 5}, "Budgets has no argument 'token' .did you mean 'tokens'"),
    ],
)
def test_a_limit_out_of_range_is_named_with_what_is_needed(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        Budgets(**changes)


def test_the_smallest_limits_are_accepted():
    Budgets(retrievals=0, tokens=1, seconds=1e-6, identical_retrievals=0, closing_tokens=1, reasoning_tokens=0)
    assert Budgets().seconds == math.inf
    assert Budgets(fruitless_replies=0) != Budgets()
