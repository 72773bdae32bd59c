"""Part-of-speech tags, corrected by their neighbours."""

import pytest

from llamaindex_prag.augment.rules.tagged_words import tagged


@pytest.mark.parametrize(
    ("sentence", "word", "tag"),
    [
        ("Climbers sign the register on its summit.", "register", "NN"),
        ("Climbers sign the register on its summit.", "sign", "VBP"),
        ("In 1923 she founded the school.", "founded", "VBD"),
        ("In 1923 she founded the school.", "1923", "CD"),
        ("The wheel weighs nine kilograms.", "weighs", "VBZ"),
        ("It was built by the Norman dynasty.", "Norman", "NNP"),
        ("She died on 6 August 1945 in Lusk.", "6 August 1945", "CD"),
        ("She died on May 3rd, 1915.", "May 3rd, 1915", "CD"),
        ("She died in Apr. 1793.", "Apr. 1793", "CD"),
        ("Boats can use it.", "use", "VB"),
        ("It may 3 times fail.", "may", "MD"),
        ("They gave $1.18 trillion away.", "$1.18 trillion", "CD"),
        ("About 4.5% live there.", "4.5%", "CD"),
        ("It was the 12th school.", "12th", "JJ"),
        ("Tolme is a bridge.", "Tolme", "NNP"),
        ("He also founded a school.", "founded", "VBD"),
        ("It is a team which founded a school.", "founded", "VBD"),
        ("The thatchers' school was closed.", "'", "POS"),
        ("Tizzen's mill was closed.", "'s", "POS"),
    ],
)
def test_tags_depend_on_the_neighbours(sentence, word, tag):
    assert [w.tag for w in tagged(sentence) if w.text == word] == [tag]


def test_words_have_their_positions():
    sentence = "Tizzen's mill (1,755 m) makes paper – for the country's banknotes."
    assert all(sentence[w.start : w.end] == w.text for w in tagged(sentence))
