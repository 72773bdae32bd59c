"""Prompts for augmenting a passage, and each style's share of the questions."""

import pytest

from llamaindex_prag.augment.prompts import STYLES, shares


@pytest.mark.parametrize("questions", range(1, 15))
def test_shares_add_up(questions):
    assert sum(shares(questions, tuple(STYLES)).values()) == questions
    assert shares(questions, ("reverse",)) == {"reverse": questions}
