"""Questions that cost nothing, of both kinds."""

from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.phrases import phrase_questions
from llamaindex_prag.rule_questions import rule_questions

ENGLISH = (
    "In 1923 she founded the school of Lusk, which has trained 740 roofers since. Her last work, at the age of "
    "sixty-nine, was the roof of the Lusk crane station, and she forbade whistling on roofs."
)
GERMAN = "Die Burg wurde 1683 von Anselm Kray gebaut und dient heute als Museum für alte Fahrpläne der Region."


def test_two_thirds_are_asked_as_people_ask_and_the_rest_fills_the_sentence():
    found = rule_questions(ENGLISH, 12, title="Petra Vold")
    assert len(found) == 12
    assert len(set(found) - set(phrase_questions(ENGLISH, 500, title="Petra Vold"))) == 8
    assert set(phrase_questions(ENGLISH, 4, title="Petra Vold")) <= set(found)


def test_a_text_in_another_language_is_asked_about_phrase_by_phrase():
    assert rule_questions(GERMAN, 10) == phrase_questions(GERMAN, 10)


@given(st.text(max_size=200), st.integers(0, 12))
def test_never_more_than_wanted(text, n):
    assert len(rule_questions(text, n)) <= n
