"""Counting the votes of continuations on a closed set of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.reflection.vote import answer_given, count_votes, normalised_ballot

YES_NO = ("yes", "no")


def test_the_largest_sum_wins_not_the_highest_score():
    # yes: 1.2 + 1.3 = 2.5; no: 2.25; "maybe" is none of the answers.
    ballot = count_votes(["Yes.", "no", "yes", "maybe"], [1.2, 2.25, 1.3, 9.0], YES_NO)
    assert ballot.winner is not None
    assert (ballot.winner.answer, ballot.winner.voters) == ("yes", (0, 2))
    assert [(t.answer, t.score) for t in ballot.tallies] == [("yes", pytest.approx(2.5)), ("no", 2.25)]
    assert ballot.blank == (3,)
    assert ballot.to_state(["a", "b", None, "d"]) == {
        "winner": "yes",
        "sums": [
            {"answer": "yes", "score": pytest.approx(2.5), "passages": ["a", None]},
            {"answer": "no", "score": 2.25, "passages": ["b"]},
        ],
        "blank": ["d"],
    }


def test_ties_go_to_the_answer_given_first():
    assert count_votes(["no", "yes"], [1.5, 1.5], YES_NO).winner.answer == "no"
    assert count_votes(["yes", "no", "no"], [1.5, 1.0, 0.5], YES_NO).winner.answer == "yes"


def test_a_sum_may_be_negative_and_an_answer_without_votes_has_none():
    ballot = count_votes(["yes", "no", "no"], [-0.2, -0.2, -0.1], (*YES_NO, "maybe"))
    assert ballot.winner.answer == "yes"
    assert [t.answer for t in ballot.tallies] == ["yes", "no"]
    assert count_votes(["perhaps", ""], [1.0, 2.0], YES_NO).winner is None


def test_written_answers_match_regardless_of_case_and_punctuation():
    ballot = count_votes(["Wray.", "  wray ", "Pike", "...", ""], [1.0, 1.0, 1.5, 9.0, 9.0], "written")
    assert [(t.answer, t.score, t.voters) for t in ballot.tallies] == [("Wray.", 2.0, (0, 1)), ("Pike", 1.5, (2,))]
    assert ballot.blank == (3, 4)


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("yes", YES_NO, "yes"),
        (" Yes, it was.", YES_NO, "yes"),
        ("**No**", YES_NO, "no"),
        ("No it was not", YES_NO, "no"),
        ("Nobody knows", YES_NO, None),
        ("It was, yes", YES_NO, None),
        ("", YES_NO, None),
        ("(A)", "ABCD", "A"),
        ("a.", "ABCD", "A"),
        ("B: granite", "ABCD", "B"),
        ("B) granite", "ABCD", "B"),
        ("A river", "ABCD", None),
        ("AB", "ABCD", None),
        ("not true", ("true", "not true"), "not true"),
        ("New York City, of course", ("New York", "New York City"), "New York City"),
        ("new-york!", ("New York", "Boston"), "New York"),
        ("ＹＥＳ", YES_NO, "yes"),
        ("STRASSE", ("Straße", "Gasse"), "Straße"),
        ("C++", ("C", "C++ 11"), "C"),
        ("a (b", ("a (b", "c"), "a (b"),
    ],
)
def test_an_answer_is_what_a_text_is_or_starts_with(text, answers, expected):
    assert answer_given(text, tuple(answers)) == expected


_TEXT = st.sampled_from(["yes", "Yes!", "no", "No, never", "maybe", "", "(yes)"])


@given(st.lists(st.tuples(_TEXT, st.floats(-0.5, 4)), max_size=8))
def test_every_continuation_counts_once_and_the_sums_match_a_plain_count(cast):
    ballot = count_votes([text for text, _ in cast], [score for _, score in cast], YES_NO)
    counted = [i for t in ballot.tallies for i in t.voters] + list(ballot.blank)
    assert sorted(counted) == list(range(len(cast)))
    plain = {
        answer: sum(score for text, score in cast if normalised_ballot(text).split()[:1] == [answer])
        for answer in YES_NO
        if any(normalised_ballot(text).split()[:1] == [answer] for text, _ in cast)
    }
    assert {t.answer: t.score for t in ballot.tallies} == pytest.approx(plain)
    if plain:
        assert ballot.winner.score == pytest.approx(max(plain.values()))
    # Only the order of ties depends on the order of the passages.
    again = count_votes([text for text, _ in cast[::-1]], [score for _, score in cast[::-1]], YES_NO)
    assert [t.score for t in again.tallies] == pytest.approx([t.score for t in ballot.tallies])
