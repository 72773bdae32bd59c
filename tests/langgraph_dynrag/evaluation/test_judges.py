"""Judges, and LangChain's evaluators as such."""

import importlib.util

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langgraph_dynrag.evaluation.judges import Judge, StringJudge, check_judge, check_needs, needs_of, string_judge
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from rag_backbone.errors import ConfigurationError, MissingExtraError

INSTALLED = importlib.util.find_spec("langchain_classic") is not None


class Overlap:
    """An evaluator with the interface of LangChain's `StringEvaluator`."""

    requires_reference = True
    requires_input = False

    def evaluate_strings(self, *, prediction, reference=None, input=None):  # noqa: A002
        assert input is None
        return {"score": None} if prediction == "?" else {"score": int(reference in prediction)}


def test_a_string_evaluator_gets_what_it_needs():
    judge = StringJudge("overlap", Overlap())
    assert isinstance(judge, Judge)
    check_judge(judge)
    assert judge("Who?", "It was Wray.", "Wray", ()) == 1.0
    with pytest.raises(ValueError, match="compares with a correct answer, and the question has none"):
        judge("Who?", "It was Wray.", "", ())
    with pytest.raises(ValueError, match="gave no score but"):
        judge("Who?", "?", "Wray", ())


@pytest.mark.skipif(not INSTALLED, reason="langchain-classic is not installed")
def test_an_evaluator_of_langchain_is_found_by_its_name():
    judge = string_judge("exact_match", ignore_case=True)
    assert judge.name == "exact_match {'ignore_case': True}"
    assert [judge("Who?", answer, "Wray", ()) for answer in ("wray", "Pike")] == [1.0, 0.0]
    with pytest.raises(
        ConfigurationError, match="there is no judge 'nothing'; known: .*exact_match.*ragas:faithfulness"
    ):
        string_judge("nothing")
    with pytest.raises(ConfigurationError, match=r"no judge 'exactmatch' \(did you mean 'exact_match'"):
        string_judge("exactmatch")
    model = FakeListChatModel(responses=["GRADE: CORRECT", "GRADE: INCORRECT"])
    judge = string_judge("qa", model)
    assert judge.name == "qa by FakeListChatModel"
    assert [judge("Who?", answer, "Wray", ()) for answer in ("Wray", "Pike")] == [1.0, 0.0]
    with pytest.raises(ConfigurationError, match="does not judge single answers"):
        string_judge("labeled_pairwise_string", model)


@pytest.mark.skipif(INSTALLED, reason="langchain-classic is installed")
def test_without_the_extra_the_error_says_what_to_install():
    with pytest.raises(MissingExtraError, match=r"the judge 'qa' needs langchain_classic.*dynprag\[eval\]"):
        string_judge("qa")


@pytest.mark.parametrize("judge", ["qa", lambda *_: 1.0, type("Nameless", (), {"name": " ", "__call__": None})()])
def test_what_is_no_judge_is_refused(judge):
    with pytest.raises(ConfigurationError, match="a callable .* with a `name` is needed"):
        check_judge(judge)


def test_a_judge_that_compares_with_answers_is_refused_where_there_are_none():
    bare, known = EvaluationQuestion("1", "Who?"), EvaluationQuestion("2", "Where?", ("Hallin",))
    judge = StringJudge("overlap", Overlap())
    assert needs_of(judge) == {"reference"}
    check_needs(judge, [bare, known])
    with pytest.raises(ConfigurationError, match="the judge overlap compares .* none of the 2 questions has one; give"):
        check_needs(judge, [bare, bare])
    check_needs(lambda *_: 1.0, [bare])  # says nothing of what it needs


@pytest.mark.parametrize("needs", ["reference", ["answers"], 3])
def test_needs_that_no_judge_can_have_are_refused(needs):
    judge = StringJudge("overlap", Overlap())
    with pytest.raises(ConfigurationError, match="needs are .* reference and contexts is needed"):
        needs_of(type("Odd", (), {"needs": needs, "name": judge.name})())
