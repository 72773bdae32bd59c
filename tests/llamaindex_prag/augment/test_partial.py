"""The replies about one document, and the questions that are chosen from them."""

import pytest

from llamaindex_prag.augment.grounding import PassageWords
from llamaindex_prag.augment.partial import PartialAugmentation
from llamaindex_prag.augment.rewriting import REWRITE

TITLE = "Harl Gate"
TEXT = "The Harl Gate was built in 1871 by Ume Stoll. It stands near Ostrim and has twenty-two doors."
BUILDER = "Q: Who built the Harl Gate?\nA: Ume Stoll"
YEAR = "Q: When was the Harl Gate built?\nA: 1871"
OWNER = "Q: Who owns the Harl Gate?\nA: Napoleon"


@pytest.fixture
def partial():
    return PartialAugmentation(TITLE, TEXT, PassageWords(TITLE, TEXT))


def answers(outcome):
    return [qa.answer for qa in outcome.augmentation.qas]


def test_what_a_document_lacks_is_known_after_each_reply(partial):
    assert partial.lacks("facts")
    assert partial.lacks(REWRITE)
    partial.take("facts", BUILDER)
    partial.take(REWRITE, "Sorry, I cannot.")
    assert not partial.lacks("facts")
    assert partial.lacks(REWRITE)
    partial.take("reverse", "Q: What is the roof of Pell House made of?\nA: copper")
    assert partial.lacks("reverse")  # the question is about something else


def test_grounded_answers_come_before_the_surplus_of_other_styles_and_invented_ones_last(partial):
    partial.take("facts", f"{OWNER}\n{BUILDER}")
    partial.take("reverse", f"{YEAR}\nQ: Where does the Harl Gate stand?\nA: near Ostrim")
    outcome = partial.finished({"facts": 2, "reverse": 1}, [], with_model=True)
    assert answers(outcome) == ["Ume Stoll", "1871", "near Ostrim"]
    assert answers(partial.finished({"facts": 3, "reverse": 1}, [], with_model=True))[-1] == "Napoleon"


def test_the_same_question_of_two_styles_is_asked_once(partial):
    for style in ("facts", "reverse"):
        partial.take(style, BUILDER)
    outcome = partial.finished({"facts": 1, "reverse": 1}, [], with_model=True)
    assert [qa.source for qa in outcome.augmentation.qas] == ["model", "cloze"]
    assert outcome.augmentation.notes == ("1 of 2 questions from the model, 1 cloze questions added",)


def test_surplus_yes_no_questions_are_not_used(partial):
    partial.take("yes_no", "\n".join(f"Q: Is the Harl Gate {word}?\nA: yes" for word in ("near Ostrim", "from 1871")))
    outcome = partial.finished({"facts": 1, "yes_no": 1}, [], with_model=True)
    assert answers(outcome).count("yes") == 1


def test_an_error_is_forgotten_once_the_prompt_succeeds(partial):
    partial.take("facts", TimeoutError("slow"))
    failed = partial.finished({"facts": 1}, ["facts"], with_model=True)
    assert failed.failed
    assert failed.augmentation.notes[0] == "facts: the model failed with TimeoutError: slow"
    partial.take("facts", BUILDER)
    assert not partial.finished({"facts": 1}, [], with_model=True).failed


def test_the_notes_say_what_was_missing_in_the_replies(partial):
    partial.take("facts", "I am sorry.")
    partial.take(REWRITE, "I am sorry.")
    outcome = partial.finished({"facts": 1}, ["facts", REWRITE], with_model=True)
    assert outcome.augmentation.notes[:2] == (
        "facts: no usable question in the reply",
        f"{REWRITE}: no faithful rewrite in the reply",
    )
    assert not outcome.failed
