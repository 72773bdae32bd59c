"""Prompts for augmenting a passage, and each style's share of the questions."""

import pytest

from llamaindex_prag.augment.prompts import STYLES, passage_rewrite_prompt, question_begin, question_prompt, shares
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize("questions", range(1, 15))
def test_shares_add_up(questions):
    assert sum(shares(questions, tuple(STYLES)).values()) == questions
    assert shares(questions, ("reverse",)) == {"reverse": questions}


def test_shares_follow_the_styles_and_the_rest_goes_to_the_largest_remainders():
    # 3, 3, 2, 2 and 1 of 11; with 4 questions: 1.09, 1.09, 0.73, 0.73, 0.36.
    assert shares(11, tuple(STYLES)) == {name: style.share for name, style in STYLES.items()}
    assert shares(4, tuple(STYLES)) == {"facts": 1, "who_when_where": 1, "paraphrase": 1, "reverse": 1}
    assert shares(1, ("yes_no", "facts")) == {"facts": 1}


@pytest.mark.parametrize(
    ("styles", "reason"),
    [((), "name at least one"), (("facts", "facts"), "each one once"), (("facts", "odes"), "no question style 'odes'")],
)
def test_styles_must_be_known_and_named_once(styles, reason):
    with pytest.raises(ConfigurationError, match=reason):
        shares(3, styles)


def test_prompts_begin_with_the_passage_and_its_title():
    for prompt in (
        question_prompt("facts", 3, " Mill ", " It is old.\n"),
        passage_rewrite_prompt("Mill", "It is old."),
    ):
        assert prompt.startswith("Title: Mill\nPassage: It is old.\n\nWrite")
    untitled = question_prompt("reverse", 2, " ", "It is old.")
    assert untitled.startswith("Passage: It is old.\n\nWrite 2 different questions")
    assert STYLES["reverse"].instruction in untitled


def test_each_attempt_begins_with_another_opening():
    openings = STYLES["who_when_where"].openings
    begun = [question_begin("who_when_where", attempt) for attempt in range(len(openings) + 1)]
    assert begun == [f"Q: {opening}" for opening in (*openings, openings[0])]
