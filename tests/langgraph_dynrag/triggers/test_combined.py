"""Triggers that combine other triggers, on verdicts given by hand."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Unit, Verdict
from langgraph_dynrag.triggers import (
    AllOf,
    AnyOf,
    BaseTrigger,
    Entropy,
    EveryNTokens,
    EverySentence,
    Never,
    Once,
    TokenProbability,
)
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view


@dataclass(frozen=True)
class Fixed(BaseTrigger):
    """Returns the same verdict for any draft."""

    verdict: Verdict

    def judge(self, view):
        return self.verdict


def fixed(retrieve, position=None, reason="r", score=None):
    return Fixed(Verdict(retrieve, reason, (), score, None, position, trigger=reason))


def test_the_earliest_position_of_the_triggers_that_fired_counts():
    parts = fixed(True, 5, "late", 0.5), fixed(True, 2, "early", 0.2), fixed(False, 0, "quiet", 0.9)
    verdict = AnyOf(*parts).judge(view())
    assert (verdict.retrieve, verdict.position, verdict.score, verdict.trigger) == (True, 2, 0.2, "early")
    assert verdict.reason == "any of: late; early; quiet"


def test_a_verdict_without_a_position_comes_after_all_others():
    verdict = AnyOf(fixed(True, None, "end"), fixed(True, 7, "within")).judge(view())
    assert (verdict.position, verdict.trigger) == (7, "within")
    assert AnyOf(fixed(True, None), fixed(False, 3)).judge(view()).position is None


def test_a_combination_that_does_not_fire_has_no_position():
    verdict = AllOf(fixed(True, 4), fixed(False, 1)).judge(view())
    assert (verdict.retrieve, verdict.position) == (False, None)


@given(st.lists(st.booleans(), min_size=2, max_size=5))
def test_the_rules_are_any_and_all(fired):
    parts = [fixed(f) for f in fired]
    assert AnyOf(parts).judge(view()).retrieve is any(fired)
    assert AllOf(parts).judge(view()).retrieve is all(fired)


def test_a_part_that_gives_the_answer_up_counts_unless_another_one_searches():
    gives_up = Fixed(Verdict(False, "unknown", answer="I do not know."))
    for combined in (AnyOf(gives_up, fixed(False)), AllOf(fixed(True), gives_up)):
        verdict = combined.judge(view())
        assert (verdict.retrieve, verdict.answer) == (False, "I do not know.")
    assert AnyOf(gives_up, fixed(True)).judge(view()).retrieve
    assert AllOf(gives_up, fixed(False)).judge(view()).answer is None  # the other one has found nothing missing


def test_combinations_can_be_combined():
    inner = AllOf(fixed(True, 3), fixed(True, 1))
    verdict = AnyOf(fixed(False), inner).judge(view())
    assert (verdict.retrieve, verdict.position) == (True, 1)


def test_before_anything_is_written_a_trigger_that_has_no_opinion_counts_as_no():
    class First(EverySentence):
        def before(self, question):
            return Verdict(True, "first")

    assert AnyOf(First(), EverySentence()).before("Who?").retrieve
    assert not AllOf(First(), EverySentence()).before("Who?").retrieve
    assert AllOf(EverySentence(), EverySentence()).before("Who?") is None


def test_a_part_that_judges_the_whole_answer_follows_the_unit_of_the_others():
    assert AnyOf(Never(), EveryNTokens(4)).unit == Unit("tokens", 4)
    assert AnyOf(Never(), Never()).unit == Unit("all")


def test_a_part_that_returns_no_verdict_is_named():
    with pytest.raises(ConfigurationError, match=r"Fixed\(verdict=.*judge\(\) returned"):
        bad = fixed(True)
        object.__setattr__(bad, "verdict", "yes")
        AnyOf(bad, fixed(True)).judge(view())


def test_combined_triggers_need_all_signals_and_refuse_different_units():
    both = AnyOf(TokenProbability(0.5), Entropy(1.0))
    assert both.needs == {"logprob", "entropy"}
    assert str(AllOf(Never(), EverySentence()).unit) == "sentence"
    assert AnyOf(Once(), Never()).before("q").retrieve
    assert not AllOf(Once(), Never()).before("q").retrieve
    with pytest.raises(ConfigurationError, match="two or more"):
        AnyOf(Never())
    with pytest.raises(ConfigurationError, match="16 tokens.*sentence"):
        AnyOf(EverySentence(), EveryNTokens(16))


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
def test_triggers_to_combine_may_be_passed_as_a_list(kind):
    parts = (TokenProbability(0.5), Entropy(1.0))
    for listed in (list(parts), parts, (part for part in parts)):
        assert kind(listed).parts == parts
    assert repr(kind(list(parts))) == repr(kind(*parts))


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "was given no trigger"),
        ([[]], "was given no trigger"),
        ([[Never()]], "was given 1 trigger;"),
        (["flare"], r"was given 'flare' \(str\), which is not a trigger"),
        ([Never(), [Never(), Once()]], "which is not a trigger"),
        ([[Never(), None]], r"was given None \(NoneType\)"),
        ([Never, Once], "which is not a trigger"),
    ],
)
def test_invalid_combinations_are_refused_with_the_line_to_write(kind, given, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        kind(*given)
    assert f"{kind.__name__}(TokenProbability(), Entropy())" in str(refused.value)
    assert "trigger(s)" not in str(refused.value)
