"""Questions about every phrase of a passage."""

from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.phrases import MAX_WORDS, phrase_questions

TEXT = (
    "Petra Vold (1888 to 1969) was a master thatcher. In 1923 she founded the school of Lusk, which has trained 740 "
    "roofers since. Her last work was the roof of the Lusk crane station."
)


def test_every_phrase_is_asked_about_and_its_answer_is_in_the_passage():
    found = phrase_questions(TEXT, 1000, title="Petra Vold")
    answers = {qa.answer for qa in found}
    assert {"1888", "1969", "master thatcher", "1923", "school", "Lusk", "Lusk crane station", "roof"} <= answers
    assert all(qa.answer in TEXT for qa in found)


def test_each_phrase_is_asked_about_once_before_any_is_asked_about_again():
    phrases = {qa.answer for qa in phrase_questions(TEXT, 1000)}
    first = [qa.answer for qa in phrase_questions(TEXT, len(phrases))]
    assert len(set(first)) >= len(first) - 2  # "Lusk" occurs more than once


def test_questions_ask_for_years_and_numbers_explicitly():
    found = {
        (qa.question, qa.answer) for qa in phrase_questions("Arl was founded in 1683. It has 312 inhabitants.", 99)
    }
    assert ("Arl was founded in which year?", "1683") in found
    assert ("It has how many?", "312 inhabitants") in found


def test_a_leading_pronoun_is_replaced_by_the_title_and_every_question_names_it():
    found = phrase_questions("She forbade whistling on roofs.", 100, title="Petra Vold")
    assert "Petra Vold forbade whistling on what?" in {qa.question for qa in found}
    assert all("Petra Vold" in qa.question for qa in found if "Petra Vold" not in qa.answer)


def test_the_same_passage_gives_the_same_questions_and_another_seed_others():
    def asked(seed):
        return [qa.question for qa in phrase_questions(TEXT, 30, title="Petra Vold", seed=seed)]

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)


@given(st.text(max_size=300), st.integers(0, 20), st.text(max_size=20))
def test_any_text_is_handled(text, n, title):
    found = phrase_questions(text, n, title=title)
    assert len(found) <= n
    assert all(qa.answer.strip() and qa.question.strip() and len(qa.answer.split()) <= MAX_WORDS for qa in found)
