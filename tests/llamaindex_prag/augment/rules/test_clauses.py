"""Clauses of a sentence: subject, verb and phrases."""

import pytest

from llamaindex_prag.augment.rules.clauses import clauses, pieces_of
from llamaindex_prag.augment.rules.tagged_words import tagged


def said(words):
    return " ".join(w.text for w in words)


def read(sentence):
    return [(said(c.subject), said(c.verb), [said(p.words) for p in c.pieces]) for c in clauses(sentence)]


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


def test_participles_become_clauses_about_the_noun_before_them():
    assert read("The bridge, designed by Ida Brandt and opened in 1911, crosses the Aske.") == [
        ("The bridge", "was designed", ["by Ida Brandt"]),
        ("The bridge", "was opened", ["in 1911"]),
        ("The bridge", "crosses", ["the Aske"]),
    ]


def test_participles_after_a_definition_are_about_what_is_defined():
    assert read("Lusk is a village in the Aske valley, known for its cheese.") == [
        ("Lusk", "is", ["a village", "in the Aske valley"]),
        ("Lusk", "is known", ["for its cheese"]),
    ]


def test_a_second_verb_is_passive_only_after_a_passive_one():
    assert read("He was a son of Ole Kray and married Ida Brandt.")[1] == ("He", "married", ["Ida Brandt"])
    assert read("It was built in 1802 and opened in 1804.")[1] == ("It", "was opened", ["in 1804"])


def test_a_subject_may_be_followed_by_an_aside():
    assert read("Her father, Ole Brandt, was a smith.") == [("Her father", "was", ["a smith"])]


def test_adverbs_and_subordinators_are_not_part_of_the_subject():
    assert read("While Ole Kray easily won the race.") == [("Ole Kray", "won", ["the race"])]


def test_coordinated_nouns_are_one_phrase():
    assert read("She studied law and political science in 1921.")[0][2] == ["law and political science", "in 1921"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("She lived in Lusk, Nebraska, United States.", ["in Lusk, Nebraska, United States"]),
        ("In Lusk, Petra Vold founded a school.", ["a school", "In Lusk"]),
    ],
)
def test_a_place_and_what_contains_it_are_one_name(text, pieces):
    assert read(text)[0][2] == pieces


def test_an_inverted_sentence_is_reordered():
    assert read("On the middle pier stands a statue of Jonka Bressel.") == [
        ("a statue of Jonka Bressel", "stands", ["On the middle pier"])
    ]


def test_joined_pieces_give_back_the_words():
    words = tagged("the roof of the old crane station in 1931 and a walnut stick")
    assert [w for p in pieces_of(words) for w in p.words] == words
