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
        ("The thatchers' school was closed.", "'", "POS"),
        ("Tizzen's mill was closed.", "'s", "POS"),
    ],
)
def test_tags_depend_on_the_neighbours(sentence, word, tag):
    assert [w.tag for w in tagged(sentence) if w.text == word] == [tag]


def test_words_have_their_positions():
    sentence = "Tizzen's mill (1,755 m) makes paper – for the country's banknotes."
    assert all(sentence[w.start : w.end] == w.text for w in tagged(sentence))
