"""Cloze questions without a model."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.cloze import BLANK, cloze_questions, passage_question

TITLE = "Harl Gate"
TEXT = (
    "The Harl Gate is a sluice near Ostrim. It was built in 1871 by Ume Stoll. On 4 May 1902 a flood rose to "
    "1,250 centimetres, and the keeper Ado Brin closed all twenty-two doors. It has 22 doors."
)


def asked(text=TEXT, n=50, title=TITLE):
    return {qa.question: qa.answer for qa in cloze_questions(text, n, title=title)}


def test_names_dates_years_and_numbers_become_blanks():
    found = asked()
    assert found[f'Fill in the blank: "The {BLANK} is a sluice near Ostrim."'] == "Harl Gate"
    assert found[f'Fill in the blank: "The Harl Gate is a sluice near {BLANK}."'] == "Ostrim"
    assert found[f'Fill in the blank about Harl Gate: "It was built in {BLANK} by Ume Stoll."'] == "1871"
    answers = list(found.values())
    assert {"4 May 1902", "1,250", "Ado Brin", "twenty-two"} <= set(answers)
    assert "On" not in answers


def test_certain_patterns_get_question_words():
    found = asked()
    assert found["In which year was the Harl Gate built?"] == "1871"
    assert found["Who built the Harl Gate in 1871?"] == "Ume Stoll"


def test_it_refers_to_the_title_only_right_after_a_sentence_about_it():
    wh = [q for q in asked() if not q.startswith("Fill")]
    assert wh == ["In which year was the Harl Gate built?", "Who built the Harl Gate in 1871?"]  # not "It has 22 doors"


def test_a_year_of_something_else_is_not_attributed_to_the_subject():
    found = asked("The Corl Hall was opened in a house designed by Bo Trent.", title="Corl Hall")
    assert not any(q.startswith(("Who", "In which year")) for q in found)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_few_questions_are_spread_over_the_sentences(n):
    found = cloze_questions(TEXT, n, title=TITLE)
    assert len(found) == n
    if n >= 4:
        assert len({qa.full_answer for qa in found}) == 4


def test_the_same_passage_gives_the_same_questions_without_duplicates():
    assert asked() == asked()
    assert len(asked()) == len(cloze_questions(TEXT, 50, title=TITLE))
    assert asked(TEXT + " " + TEXT).keys() >= asked().keys()
    assert {qa.source for qa in cloze_questions(TEXT, 50)} == {"cloze"}


@pytest.mark.parametrize(
    "text",
    ["東京は日本の首都である。人口は多い。", "हिमालय बहुत ऊँचा है।", "مدينة قديمة على النهر", "...", "\n\n", "a b c"],
)
def test_a_passage_without_recognisable_facts_gives_no_question(text):
    assert cloze_questions(text, 5) == []


def test_the_fallback_is_the_passage_itself():
    assert passage_question("京都", "古い\n都である。").answer == "古い 都である。"
    assert "京都" in passage_question("京都", "古い都である。").question
    assert passage_question("", "One two three four five six seven eight").question == (
        'Which text begins with "One two three four five six"?'
    )


@given(
    st.text(
        st.sampled_from("The It was built in 1871 by Ana Bo. 12,5\n\u00c9 東ß-'\"(") | st.characters(), max_size=200
    )
)
def test_any_text_gives_valid_questions_only(text):
    for qa in cloze_questions(text, 4, title="Ana"):
        assert qa.answer.strip()
        assert BLANK in qa.question or qa.question.endswith("?")


@pytest.mark.parametrize("piece", ["A1 ", "Aa", "東", "1,", "the ", "A of the ", "x", "Ab was built "])
def test_long_texts_take_bounded_time(piece):
    started = time.process_time()
    cloze_questions(piece * 500_000, 10, title="A title")
    assert time.process_time() - started < 10
