"""Requests that are refused, and the arithmetic and text of results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.engine.requests import Generation, Request, TokenCounts
from rag_backbone.engine.signals import TokenStep
from rag_backbone.errors import ConfigurationError

COUNTS = st.builds(TokenCounts, *[st.integers(0, 10**6)] * 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Request("x", 0), "at least 1"),
        (lambda: Request("x", 5, stop="ab"), r"\['ab'\]"),
    ],
)
def test_options_out_of_range_are_named_in_the_error(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_counts_are_added_field_by_field():
    assert TokenCounts(1, 20, 300, 4000) + TokenCounts(5, 60, 700, 8000) == TokenCounts(6, 80, 1000, 12000)


@given(COUNTS, COUNTS)
def test_subtraction_undoes_addition(a, b):
    assert a + b - b == a
    assert a - a == TokenCounts()


def test_a_generation_shows_its_text_and_costs_but_not_every_step():
    steps = tuple(TokenStep(i, token, text, -0.5) for i, (token, text) in enumerate([(7, "a"), (9, "b")]))
    made = Generation("ab", steps, "length", 12, TokenCounts(cached_tokens=11))
    assert made.token_ids == [7, 9]
    assert repr(made) == "Generation('ab', 2 tokens, finish_reason='length', prompt_tokens=12, cached=11)"
