"""Questions by rule, of both kinds."""

from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.clause_questions import clause_questions
from llamaindex_prag.augment.rules.phrases import phrase_questions
from llamaindex_prag.augment.rules.questions import rule_questions

ENGLISH = (
    "In 1923 she founded the school of Lusk, which has trained 740 roofers since. Her last work, at the age of "
    "sixty-nine, was the roof of the Lusk crane station, and she forbade whistling on roofs."
)
GERMAN = "Die Burg wurde 1683 von Anselm Kray gebaut und dient heute als Museum für alte Fahrpläne der Region."


def test_natural_questions_come_first_and_phrase_questions_fill_up():
    natural = clause_questions(ENGLISH, 500, title="Petra Vold")
    found = rule_questions(ENGLISH, len(natural) + 3, title="Petra Vold")
    assert len(natural) > 10
    assert found == [*natural, *phrase_questions(ENGLISH, 3, title="Petra Vold")]


def test_a_text_in_another_language_gets_phrase_questions():
    assert rule_questions(GERMAN, 10) == phrase_questions(GERMAN, 10)


@given(st.text(st.characters(), max_size=200), st.text(st.characters(), max_size=9), st.integers(0, 12))
def test_there_are_never_more_questions_than_requested(text, title, n):
    assert len(rule_questions(text, n, title=title)) <= n


def test_a_lone_surrogate_is_handled():
    assert rule_questions(ENGLISH + " It was \ud83d in 1950.", 12, title="\udc00")
