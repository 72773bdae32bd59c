"""Triggers on the model's confidence, against their definitions."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.triggers import Entropy, TokenProbability
from langgraph_dynrag.triggers.confidence import above
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view


def of_entropies(pieces, entropies):
    draft = Draft(tuple(pieces), (-0.1,) * len(pieces), tuple(entropies))
    return DraftView("Who?", "", draft, len(draft))


def test_the_first_token_below_theta_is_the_position():
    verdict = TokenProbability(0.8).judge(view("It was Joan Pike.", {"Joan": 0.5, "Pike": 0.1}))
    assert verdict.retrieve
    assert (verdict.position, verdict.hits) == (2, (2, 3))
    assert verdict.score == pytest.approx(0.1)
    assert verdict.reason == "min probability 0.100 < 0.8"


def test_a_probability_equal_to_theta_does_not_fire():
    quiet = TokenProbability(math.exp(math.log(0.8))).judge(view("It was Joan.", {"Joan": 0.8}))
    assert (quiet.retrieve, quiet.position, quiet.hits) == (False, None, ())
    assert ">= 0.8" in quiet.reason


def test_the_mean_may_fire_without_any_single_token():
    # (0.95 + 0.95 + 0.5 + 0.95) / 4 = 0.8375
    text = view("It was Joan.", {"Joan": 0.5})
    assert TokenProbability(0.84, "mean").judge(text).score == pytest.approx(0.8375)
    assert TokenProbability(0.84, "mean").judge(text).retrieve
    assert not TokenProbability(0.83, "mean").judge(text).retrieve
    # Every token is below 1, so the position is the first one.
    assert TokenProbability(1.0, "mean").judge(text).position == 0


def test_only_names_count_that_neither_question_nor_answer_contain():
    text = view("It was Joan Pike in 1871.", {"It": 0.1, "Joan": 0.2, "Pike": 0.5, "1871": 0.6})
    trigger = TokenProbability(0.7, tokens="new_names")
    found = trigger.judge(text)
    assert (found.retrieve, found.position, found.hits) == (True, 2, (2, 3, 5))
    assert found.score == pytest.approx(0.2)
    assert found.scores[0] is None
    asked = trigger.judge(replace(text, question="Who was Joan?", accepted="Pike is a name. "))
    assert (asked.position, asked.hits) == (5, (5,))
    assert TokenProbability(0.55, "mean", tokens="new_names").judge(text).score == pytest.approx((0.2 + 0.5 + 0.6) / 3)
    none = trigger.judge(replace(text, question="Was it Joan Pike in 1871?"))
    assert (none.retrieve, none.reason, none.position) == (False, "no new name was written", None)


def test_an_empty_draft_never_fires():
    verdict = TokenProbability(1.0).judge(DraftView("Who?", "", Draft(), 0))
    assert (verdict.retrieve, verdict.reason) == (False, "nothing was written")
    assert not Entropy(0.0).judge(DraftView("Who?", "", Draft(), 0)).retrieve


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8), st.floats(0, 1))
def test_flare_accepts_a_sentence_exactly_if_every_token_reaches_theta(probabilities, theta):
    logprobs = tuple(math.log(p) for p in probabilities)
    draft = Draft(("a",) * len(logprobs), logprobs)
    verdict = TokenProbability(theta).judge(DraftView("Who?", "", draft, len(draft)))
    assert verdict.retrieve == any(math.exp(logprob) < theta for logprob in logprobs)


def test_only_judged_tokens_count():
    draft = Draft(("It", " was", " Joan"), (-0.01, -0.01, -9.0))
    assert not TokenProbability(0.8).judge(DraftView("Who?", "", draft, 2)).retrieve
    assert TokenProbability(0.8).judge(DraftView("Who?", "", draft, 3)).retrieve


def test_entropy_skips_stop_words_and_punctuation_unless_told_otherwise():
    text = of_entropies(["The", " bridge", "."], [5.0, 1.0, 5.0])
    content = Entropy(2.0).judge(text)
    assert (content.retrieve, content.scores) == (False, (None, 1.0, None))
    every = Entropy(2.0, content_only=False).judge(text)
    assert (every.retrieve, every.position, every.hits) == (True, 0, (0, 2))
    assert every.reason == "entropy 5.000 > 2 nats"


def test_a_score_at_the_threshold_fires_only_if_the_threshold_is_inclusive():
    exclusive, inclusive = (above((1.0, None, 2.0), 2.0, "own", inclusive=flag) for flag in (False, True))
    assert (exclusive.retrieve, exclusive.score, exclusive.reason) == (False, 2.0, "own 2.000 <= 2")
    assert (inclusive.retrieve, inclusive.position, inclusive.reason) == (True, 2, "own 2.000 >= 2")
    assert above((None,), 2.0, "own").reason == "own none <= 2"


def test_thresholds_out_of_range_are_named():
    with pytest.raises(ConfigurationError, match="theta is 1.5"):
        TokenProbability(1.5)
    with pytest.raises(ConfigurationError, match="'median'; known: 'min', 'mean'"):
        TokenProbability(aggregate="median")
    with pytest.raises(ConfigurationError, match="threshold is -1.*an entropy in nats"):
        Entropy(-1)
