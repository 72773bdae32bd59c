"""SeaKR's trigger, on sampled states worked out by hand."""

import math

import pytest

from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.triggers import SelfAwareUncertainty
from tests.langgraph_dynrag.recorded import sampled, view

QUESTION = "Who built the bridge in the capital?"


def test_the_trigger_compares_uncertainty_with_its_threshold_and_flags_the_whole_sentence():
    ends = sampled([[1.0, -1.0], [1.0, -1.0]], sequences=2, tokens=9)
    u = math.log(5) / 2
    for threshold, retrieve in ((u - 1e-6, True), (u + 1e-6, False)):
        verdict = SelfAwareUncertainty(threshold, alpha=1.0).judge(view(sample_ends=lambda spec: ends))
        assert verdict.retrieve is retrieve
        assert verdict.score == pytest.approx(u)
        assert verdict.position == (0 if retrieve else None)
        assert verdict.cost == {"sequences": 2, "tokens": 9}
    assert Verdict.from_state(verdict.to_state()) == verdict


def test_samples_that_are_all_empty_are_uncertain_at_any_threshold():
    ends = sampled([[1.0, -1.0]] * 3, ["", " ", "\n"])
    verdict = SelfAwareUncertainty(1e6).judge(view(sample_ends=lambda spec: ends))
    assert (verdict.retrieve, verdict.score, verdict.reason) == (True, None, "every sample was empty")


def test_a_blank_sentence_is_uncertain_without_sampling():
    def never(spec):
        raise AssertionError

    blank = DraftView(QUESTION, "", Draft((" \n",), (-0.1,)), 1, sample_ends=never)
    assert SelfAwareUncertainty().judge(blank).retrieve
