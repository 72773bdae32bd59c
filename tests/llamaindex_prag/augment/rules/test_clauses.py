"""Clauses of a sentence: subject, verb and phrases."""

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


def test_an_inverted_sentence_is_reordered():
    assert read("On the middle pier stands a statue of Jonka Bressel.") == [
        ("a statue of Jonka Bressel", "stands", ["On the middle pier"])
    ]


def test_joined_pieces_give_back_the_words():
    words = tagged("the roof of the old crane station in 1931 and a walnut stick")
    assert [w for p in pieces_of(words) for w in p.words] == words
