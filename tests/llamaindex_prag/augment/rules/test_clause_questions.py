"""Questions generated from clauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.clause_questions import MAX_WORDS, clause_questions
from llamaindex_prag.augment.rules.clauses import clauses, pieces_of
from llamaindex_prag.augment.rules.tagged_words import tagged


def said(words):
    return " ".join(w.text for w in words)


def read(sentence):
    return [(said(c.subject), said(c.verb), [said(p.words) for p in c.pieces]) for c in clauses(sentence)]


def asked(text, title=""):
    """Collect questions over several seeds, because the forms are random."""
    return {(qa.question, qa.answer) for seed in range(8) for qa in clause_questions(text, 500, title=title, seed=seed)}


@pytest.mark.parametrize(
    ("sentence", "word", "tag"),
    [
        ("Climbers sign the register on its summit.", "register", "NN"),
        ("Climbers sign the register on its summit.", "sign", "VBP"),
        ("In 1923 she founded the school.", "founded", "VBD"),
        ("In 1923 she founded the school.", "1923", "CD"),
        ("The wheel weighs nine kilograms.", "weighs", "VBZ"),
        ("It was built by the Norman dynasty.", "Norman", "NNP"),
        ("The thatchers' school was closed.", "'", "POS"),
        ("Tizzen's mill was closed.", "'s", "POS"),
    ],
)
def test_tags_depend_on_the_neighbours(sentence, word, tag):
    assert [w.tag for w in tagged(sentence) if w.text == word] == [tag]


def test_words_have_their_positions():
    sentence = "Tizzen's mill (1,755 m) makes paper – for the country's banknotes."
    assert all(sentence[w.start : w.end] == w.text for w in tagged(sentence))


def test_a_relative_clause_takes_the_noun_before_it_and_a_fronted_phrase_moves_to_the_end():
    assert read("In 1923 she founded the school of Lusk, which has trained 740 roofers.") == [
        ("she", "founded", ["the school", "of Lusk", "In 1923"]),
        ("Lusk", "has trained", ["740 roofers"]),
    ]


def test_verbs_joined_by_and_share_their_subject():
    assert read("The bridge was completed by Anselm Kray and has seven arches.") == [
        ("The bridge", "was completed", ["by Anselm Kray"]),
        ("The bridge", "has", ["seven arches"]),
    ]


def test_an_inverted_sentence_is_reordered():
    assert read("On the middle pier stands a statue of Jonka Bressel.") == [
        ("a statue of Jonka Bressel", "stands", ["On the middle pier"])
    ]


def test_joined_pieces_give_back_the_words():
    words = tagged("the roof of the old crane station in 1931 and a walnut stick")
    assert [w for p in pieces_of(words) for w in p.words] == words


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
