"""Labels of sentences as right, wrong or nothing new, worked out by hand."""

import pytest

from benchmarks.datasets import Paragraph, Question
from benchmarks.fact_labels import judge, names_and_numbers, told_by, vocabulary

WRAY = Paragraph("Aldous Wray", "Aldous Wray (born 1831 in Lusk) built Cooper's Bridge over the Ede.", True)
LUSK = Paragraph("Lusk", "Lusk is a town of 4,200 people in the county of Merrow.", True)
PIKE = Paragraph("Joan Pike", "Joan Pike kept the toll in 1840.", False)
ASKED = Question(
    "q",
    "In which county was the builder of Cooper's Bridge born?",
    ("Merrow", "County Merrow"),
    (PIKE, WRAY, LUSK),
    "bridge",
)
PHRASE = "So the answer is"


def said(text, spans):
    return [text[s.start : s.end] for s in spans]


@pytest.mark.parametrize(
    ("sentence", "before", "label", "unsupported"),
    [
        ("Cooper's Bridge was built by Aldous Wray.", "", "right", []),
        ("Cooper's Bridge was built by Joan Pike.", "", "wrong", ["Joan", "Pike"]),  # in no supporting paragraph
        ("Aldous Wray was born in Lusk.", "It was built by Aldous Wray.", "right", []),
        ("Aldous Wray was born in 1832.", "It was built by Aldous Wray.", "wrong", ["1832"]),
        ("Aldous Wray built it.", "It was built by Aldous Wray.", "nothing new", []),
        ("Joan Pike built it.", "It was built by Joan Pike.", "wrong", ["Joan", "Pike"]),  # still wrong when repeated
        ("The builder was born somewhere.", "", "nothing new", []),
        ("Cooper's Bridge has a builder.", "", "nothing new", []),  # the name is in the question
        ("It lies in the county of Merrow, in Nowhere.", "", "right", []),  # it states the answer
        ("So the answer is Merrow.", "", "right", []),
        ("So the answer is County Merrow.", "", "right", []),
        ("So the answer is Lusk.", "", "wrong", ["Lusk"]),  # a supported name, but not the answer
    ],
)
def test_sentences_are_labelled_by_their_facts(sentence, before, label, unsupported):
    found = judge(sentence, before, ASKED, PHRASE)
    assert found.label == label
    assert said(sentence, found.unsupported) == unsupported


def test_a_repeated_answer_is_nothing_new():
    assert judge("It is Merrow.", "The county is Merrow.", ASKED, PHRASE).label == "nothing new"


def test_names_and_numbers_are_found():
    text = "The bridge, with 3 arches, is Wray's; The Ede is below. Ede-side walks"
    assert said(text, names_and_numbers(text)) == ["3", "Wray's", "Ede", "Ede-side"]
    assert vocabulary("Wray's Ede-side") >= {"wray", "edeside", "ede", "side"}


def test_a_right_sentence_is_attributed_to_its_paragraph():
    sentence = "Aldous Wray was born in Lusk."
    assert told_by(sentence, judge(sentence, "", ASKED, PHRASE), ASKED) == WRAY  # the paragraph on Lusk lacks his name
    sentence = "Lusk lies in Merrow."
    assert told_by(sentence, judge(sentence, "", ASKED, PHRASE), ASKED) == LUSK
    assert told_by("It is.", judge("It is.", "", ASKED, PHRASE), ASKED) is None
