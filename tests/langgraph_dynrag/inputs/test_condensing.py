"""Reading the question in a model's reply."""

import pytest

from langgraph_dynrag.inputs.condensing import Condensed, CondenseQuestion
from langgraph_dynrag.inputs.conversation import Turn
from rag_backbone.errors import ConfigurationError

ASKED = "And where was he born?"
ALONE = "Where was Aldous Wray born?"


@pytest.mark.parametrize(
    "reply",
    [ALONE, f'"{ALONE}"', f"Standalone question: {ALONE}", f"Here is the question:\n\n**{ALONE}**"],
)
def test_labels_and_quotes_are_not_part_of_the_question(reply):
    assert CondenseQuestion().read(reply, ASKED) == Condensed(ALONE)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "empty"),
        ("Here is the question:\n", "empty"),
        ("word " * 60 + "?", "too long"),
        ("字" * 500, "too long"),
        ("I'm sorry, I cannot do that.", "not a question"),
        ("So the answer is Hallin", "not a question"),
        ("He was born in Hallin.", "an answer, not a question"),
    ],
)
def test_a_reply_that_is_no_question_says_why(reply, problem):
    found = CondenseQuestion().read(reply, ASKED)
    assert found.question is None
    assert problem in found.problem


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("Let me see.\nWhere was Aldous Wray born?", ALONE),  # the line with a question mark
        ("birthplace of Aldous Wray", "birthplace of Aldous Wray"),  # keywords have none
        ("阿尔杜斯·雷在哪里出生？", "阿尔杜斯·雷在哪里出生？"),
        ("The standalone question is: Where was Aldous Wray born?", ALONE),
    ],
)
def test_the_line_that_can_be_the_question_is_taken(reply, question):
    assert CondenseQuestion().read(reply, ASKED) == Condensed(question)


def test_a_statement_may_stay_a_statement():
    assert CondenseQuestion().read("Tell of Aldous Wray.", "Tell of him.").question == "Tell of Aldous Wray."


def test_the_allowed_length_is_relative_to_the_question():
    read = CondenseQuestion(max_words=2).read
    assert read("Where was Aldous Wray born?", "Where was he?").question is not None  # two words more
    assert read("Where was old Aldous Wray born?", "Where was he?").question is None
    with pytest.raises(ConfigurationError, match="max_words is 0"):
        CondenseQuestion(max_words=0)


def test_the_prompt_has_the_turns_in_order_and_braces_in_them_stay():
    prompt = CondenseQuestion().prompt([Turn("user", "Who\nbuilt {question}?"), Turn("assistant", "{history}")], ASKED)
    assert "\nUser: Who built {question}?\nAssistant: {history}\n" in prompt
    assert prompt.endswith(f"Last message: {ASKED}")
