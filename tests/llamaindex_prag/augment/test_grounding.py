"""Answers that a passage supports."""

import pytest

from llamaindex_prag.augment.grounding import PassageWords

PASSAGE = PassageWords(
    "Harl Gate", "Ume Stoll's gate at Ostrim rises 1,250 centimetres. Two ferries pass the salt-works daily."
)


@pytest.mark.parametrize(
    "answer", ["Ume Stoll", "the Harl Gate", "1250", "1,250 centimetres", "salt works", "OSTRIM.", "two ferries"]
)
def test_supported(answer):
    assert PASSAGE.supports("What?", answer)


@pytest.mark.parametrize("answer", ["Ume Marsh", "1251", "125", "a bridge", "Paris"])
def test_not_supported(answer):
    assert not PASSAGE.supports("What?", answer)


def test_yes_and_no_need_a_question_about_the_passage():
    assert PASSAGE.supports("Does the Harl Gate stand at Ostrim?", "Yes")
    assert not PASSAGE.supports("Did Napoleon cross the Alps in winter?", "no")


def test_a_question_is_about_the_passage_or_not():
    assert PASSAGE.knows("How many ferries go by the salt-works?")
    assert PASSAGE.knows("Who owned the Harl Gate?")
    assert not PASSAGE.knows("What is the roof of Pell House made of?")
    assert not PASSAGE.knows("Which gate did Tanja Kannuschka pass?")


def test_scripts_without_spaces():
    passage = PassageWords("灯台", "灯台は1871年に石川で建てられた。")
    assert passage.supports("?", "石川")
    assert not passage.supports("?", "京都")
