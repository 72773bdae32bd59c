"""A query that the model writes, and the question before another query."""

import pytest

from langgraph_dynrag.drafts.draft import Verdict
from langgraph_dynrag.queries import MaskedSentence, Question, Rewrite, WithQuestion
from langgraph_dynrag.queries.rewrite import clean_reply, rewrite_prompt
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import QUESTION, view

FIRED = Verdict(True, "test")


@pytest.mark.parametrize(
    ("reply", "query"),
    [
        ("mason of the bridge", "mason of the bridge"),
        ('\n\n Query: "mason of the bridge"\nBecause it is unknown.', "mason of the bridge"),
        ("Search queries: mason", "mason"),
        ("query : “mason”", "mason"),
        ("query the mason", "query the mason"),
        ("one two three four", ""),
        ("", ""),
        (" \n ", ""),
        ('""', ""),
    ],
)
def test_the_first_line_is_the_query_without_label_and_quotes(reply, query):
    assert clean_reply(reply, 4 if "mason" in reply else 3) == query


def test_the_model_sees_the_question_the_text_and_the_queries_that_failed():
    prompt = rewrite_prompt("Who?", "It was", ["a", "b"])
    assert prompt.startswith("Question: Who?\nAnswer so far: It was\n")
    assert 'found nothing useful: "a"; "b"\n' in prompt
    fresh = rewrite_prompt("Who?", "", ())
    assert "Answer so far: (nothing yet)" in fresh
    assert "found nothing useful" not in fresh


def test_the_answer_so_far_ends_with_the_judged_tokens():
    (prompt,) = Rewrite().plan(view("It was Joan.", accepted="It is old. "), FIRED).prompts
    assert "Answer so far: It is old. It was Joan.\n" in prompt


def test_an_unusable_reply_is_replaced_by_the_question():
    assert Rewrite().finish(view(), FIRED, ["Query: mason"]) == ("mason",)
    assert Rewrite().finish(view(), FIRED, ["word " * 33]) == (QUESTION,)
    assert Rewrite(40).finish(view(), FIRED, ["word " * 33]) == (("word " * 33).strip(),)
    assert Rewrite().finish(view(), FIRED, [""]) == (QUESTION,)


def test_the_question_stands_before_the_other_query_unless_it_is_the_question():
    both = WithQuestion(MaskedSentence(0.0))
    assert both.plan(view("It was Joan."), FIRED).queries == (f"{QUESTION} It was Joan.",)
    assert both.needs == {"logprob"}
    assert WithQuestion(Question()).plan(view(), FIRED).queries == (QUESTION,)


def test_replies_to_the_other_formulator_get_the_question_as_well():
    both = WithQuestion(Rewrite())
    assert both.plan(view(), FIRED).prompts == Rewrite().plan(view(), FIRED).prompts
    assert both.finish(view(), FIRED, ["mason"]) == (f"{QUESTION} mason",)
    assert both.finish(view(), FIRED, [""]) == (QUESTION,)


def test_a_class_instead_of_a_formulator_is_refused():
    with pytest.raises(ConfigurationError, match=r"Pass an instance: Question\(...\)"):
        WithQuestion(Question)
