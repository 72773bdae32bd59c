"""Queries copied from existing text."""

import pytest

from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.queries import AnswerThenQuestion, LastSentence, LastTokens, Question
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import QUESTION, view

FIRED = Verdict(True, "test")


def test_the_question_is_the_query_whatever_was_written():
    assert Question().plan(view("It was Joan.", accepted="It is old."), FIRED).queries == (QUESTION,)


@pytest.mark.parametrize(
    ("accepted", "text", "query"),
    [
        ("It is old. ", "It was Joan.", "It was Joan."),
        ("It was the mason", " Joan Pike.", "It was the mason Joan Pike."),
        ("", "It is old. It was", "It was"),
    ],
)
def test_the_last_sentence_may_begin_in_the_accepted_text(accepted, text, query):
    assert LastSentence().plan(view(text, accepted=accepted), FIRED).queries == (query,)


def last_tokens(n, accepted, pieces, judged=None):
    draft = Draft(tuple(pieces), (-0.1,) * len(pieces))
    (query,) = LastTokens(n).plan(DraftView("Who?", accepted, draft, judged or len(draft)), FIRED).queries
    return query


def test_the_last_judged_tokens_are_the_query():
    pieces = [" It", " was", " Jo", "an", ".", " Then"]
    assert last_tokens(3, "", pieces, judged=5) == "Joan."
    assert last_tokens(5, "", pieces, judged=5) == "It was Joan."


def test_words_of_the_accepted_text_stand_in_for_missing_tokens():
    assert last_tokens(4, "It is very old.", [" It", " was"]) == "very old. It was"
    assert last_tokens(9, "", [" It", " was"]) == "It was"


def test_a_query_of_no_tokens_is_refused():
    with pytest.raises(ConfigurationError, match="n is 0; at least 1"):
        LastTokens(0)


@pytest.mark.parametrize(
    ("accepted", "text", "written"),
    [("", " It was Joan. She", "It was Joan. She"), ("It is old.", " It was Joan.", "It is old. It was Joan.")],
)
def test_the_whole_text_precedes_the_question(accepted, text, written):
    (query,) = AnswerThenQuestion().plan(view(text, accepted=accepted), FIRED).queries
    assert query == f"{written} {QUESTION}"
