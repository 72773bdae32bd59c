"""Tokens and drafts of a trace."""

import math

import pytest

from langgraph_dynrag.trace.draft_trace import DraftTrace, TokenTrace


def test_the_probability_of_a_token_is_known_if_its_logarithm_is():
    assert TokenTrace("a", "accepted", logprob=math.log(0.25)).probability == pytest.approx(0.25)
    assert TokenTrace("a", "accepted", logprob=0.0).probability == 1.0
    assert TokenTrace("a", "accepted").probability is None


def test_the_text_of_a_draft_is_that_of_all_its_tokens_whatever_became_of_them():
    tokens = tuple(
        TokenTrace(t, fate) for t, fate in (("It", "accepted"), (" was", "discarded"), (" x", "looked ahead"))
    )
    assert DraftTrace(tokens, None, "unit", (), {}).text == "It was x"
    assert DraftTrace((), None, "end", (), {}).text == ""
