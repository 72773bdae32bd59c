"""Questions generated from clauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.clause_questions import MAX_WORDS, clause_questions


def asked(text, title=""):
    """Collect questions over several seeds, because the forms are random."""
    return {(qa.question, qa.answer) for seed in range(8) for qa in clause_questions(text, 500, title=title, seed=seed)}


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("In 1923 she founded the school of Lusk.", "In which year did Petra Vold found the school of Lusk?", "1923"),
        ("She forbade whistling on roofs.", "What did Petra Vold forbid on roofs?", "whistling"),
        ("Petra Vold was born in Lusk.", "Where was Petra Vold born?", "Lusk"),
        ("Her school has trained 740 roofers.", "How many roofers has Petra Vold's school trained?", "740"),
        ("She was taught by Anselm Kray.", "Who was Petra Vold taught by?", "Anselm Kray"),
        ("On the pier stands a statue of Petra Vold.", "On what does a statue of Petra Vold stand?", "pier"),
        ("She had seven sisters.", "How many sisters did Petra Vold have?", "seven"),
        ("Petra Vold is known as the mother of roofs.", "What is Petra Vold known as?", "mother of roofs"),
    ],
)
def test_questions_have_question_word_order(text, question, answer):
    found = dict(asked(text, "Petra Vold"))
    assert found.get(question, "no such question").split(" ", 1)[0] == answer.split(" ", 1)[0]


def test_a_subject_is_asked_about_unless_it_is_the_title():
    assert ("Who invented the knot?", "Jory Stamm") in asked("Jory Stamm invented the knot.")
    assert not any(answer == "Jory Stamm" for _, answer in asked("Jory Stamm invented the knot.", "Jory Stamm"))


def test_the_same_passage_gives_the_same_questions():
    text = "In 1923 she founded the school of Lusk, which has trained 740 roofers since."
    first, other = (clause_questions(text, 9, title="Petra Vold", seed=s) for s in (0, 1))
    assert first == clause_questions(text, 9, title="Petra Vold")
    assert len(first) == len(other) == 9
    assert first != other


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from("The the was of in 1923 's (and) which , . it Arl by".split())).map(" ".join),
    st.integers(0, 20),
    st.text(max_size=20),
)
def test_any_text_is_handled(text, n, title):
    found = clause_questions(text, n, title=title)
    assert len(found) <= n
    assert all(qa.answer.strip() and len(qa.answer.split()) <= MAX_WORDS and qa.question.endswith("?") for qa in found)
