"""The trigger on the model's own statement that it needs a passage (Self-RAG, section 3.3)."""

import pytest

from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.triggers import Reflection
from langgraph_dynrag.triggers.reflection import wanted


def test_the_decision_uses_a_ratio_of_probabilities_not_of_logarithms():
    for yes, no in ((0.9, 0.1), (0.1, 0.9), (0.02, 0.9)):
        assert wanted({"yes": yes, "no": no, "continue": 0.5}) == pytest.approx(yes / (yes + no))
    assert wanted({"yes": 0.0, "no": 0.0}) == 0.0


def asked(**probabilities):
    return DraftView("Q?", "", Draft(), 0, retrieval=probabilities or None)


def test_the_trigger_compares_the_ratio_with_its_threshold():
    assert Reflection(0.2).judge(asked(yes=0.3, no=0.7)).retrieve
    quiet = Reflection(0.2).judge(asked(yes=0.2, no=0.8))
    assert not quiet.retrieve
    assert (quiet.score, quiet.threshold, quiet.position) == (0.2, 0.2, None)
    assert quiet.reason == "retrieval wanted 0.200 <= 0.2"
    # `continue` is not part of the ratio. If it is the likeliest answer, the current passage is kept.
    assert Reflection(0.2).judge(asked(**{"yes": 0.2, "no": 0.5, "continue": 0.3})).retrieve
    assert Reflection(0.5).judge(asked(**{"yes": 0.4, "no": 0.2, "continue": 0.4})).score == pytest.approx(2 / 3)
    assert Reflection(0.5).judge(asked(**{"yes": 0.4, "no": 0.2, "continue": 0.4})).retrieve
    serves = Reflection(0.5).judge(asked(**{"yes": 0.1, "no": 0.0, "continue": 0.9}))
    assert (serves.retrieve, serves.score) == (False, 1.0)
    assert serves.reason == "the current passage suffices, 0.900"
    assert not Reflection(None).judge(asked(yes=0.4, no=0.6)).retrieve
    assert Reflection(None).judge(asked(**{"yes": 0.4, "no": 0.3, "continue": 0.3})).retrieve
    assert Reflection(mode="always").judge(asked()).retrieve
    assert not Reflection(mode="never").judge(asked(yes=1.0, no=0.0)).retrieve
    assert not Reflection().judge(asked()).retrieve
