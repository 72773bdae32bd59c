"""Answers that a passage supports."""

import pytest

from llamaindex_prag.augment.grounding import PassageWords

PASSAGE = PassageWords(
    "Harl Gate", "Ume Stoll's gate at Ostrim rises 1,250 centimetres. Two ferries pass the salt-works daily."
)


@pytest.mark.parametrize(
    "answer", ["Ume Stoll", "the Harl Gate", "1250", "1,250 centimetres", "salt works", "OSTRIM.", "two ferries"]
)
def test_answers_from_the_passage_are_supported(answer):
    assert PASSAGE.supports("What?", answer)


@pytest.mark.parametrize("answer", ["Ume Marsh", "1251", "125", "a bridge", "Paris"])
def test_other_answers_are_not_supported(answer):
    assert not PASSAGE.supports("What?", answer)


def test_yes_and_no_require_a_question_about_the_passage():
    assert PASSAGE.supports("Does the Harl Gate stand at Ostrim?", "Yes")
    assert not PASSAGE.supports("Did Napoleon cross the Alps in winter?", "no")


def test_questions_about_other_subjects_are_recognised():
    assert PASSAGE.knows("How many ferries go by the salt-works?")
    assert PASSAGE.knows("Who owned the Harl Gate?")
    assert not PASSAGE.knows("What is the roof of Pell House made of?")
    assert not PASSAGE.knows("Which gate did Tanja Kannuschka pass?")


def test_scripts_without_spaces_are_supported():
    passage = PassageWords("灯台", "灯台は1871年に石川で建てられた。")
    assert passage.supports("?", "石川")
    assert not passage.supports("?", "京都")
