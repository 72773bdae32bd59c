"""Drafts, their units, the attention recorded with them, and verdicts as data."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Draft, DraftView, Unit, Verdict
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import causal_attention, random_draft, rows_of

PIECES = ("The", " lighthouse", " keeper", ".", " She", " wrote", ".")


def draft_of(*pieces, **fields):
    return Draft(tuple(pieces), (-0.1,) * len(pieces), **fields)


# ---------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        (Unit("sentence"), 4),
        (Unit("tokens", 3), 3),
        (Unit("tokens", 8), None),
        (Unit("until", until="keep"), 3),
        (Unit("until", until="r. S"), 5),
        (Unit("until", until="</search>"), None),
        (Unit("all"), None),
    ],
)
def test_a_unit_is_as_many_tokens_as_its_text_begins_in(unit, length):
    assert unit.length(draft_of(*PIECES)) == length


def test_a_sentence_is_complete_once_no_further_text_can_change_its_end():
    assert Unit("sentence").length(draft_of("It", " was", " Wray", ".")) is None  # "Wray.com"
    assert Unit("sentence").length(draft_of("It", " was", " Wray", ".", " He")) is None  # "He" may become "Hello"
    assert Unit("sentence").length(draft_of("It", " was", " Wray", ".", " He", " was")) == 4
    # If no text follows, two sentences are two.
    assert Unit("sentence").length(draft_of("It", " was", " Wray", ".", " He", ended="end")) == 4
    assert Unit("sentence").length(draft_of("It", " was", " Wray", ".", ended="end")) is None


def test_the_space_after_a_sentence_belongs_to_the_next_one():
    assert Unit("sentence").length(draft_of("It is.", " ", "He was", " old")) == 1


def test_units_read_as_they_are_named_and_refuse_unknown_kinds():
    assert [str(u) for u in (Unit("sentence"), Unit("tokens", 16), Unit("until", until="x"))] == [
        "sentence",
        "16 tokens",
        "'x'",
    ]
    with pytest.raises(ConfigurationError, match="'word'; known: 'sentence', 'tokens'"):
        Unit("word")


# ---------------------------------------------------------------------- drafts


def test_tokens_know_their_words_and_words_their_tokens():
    draft = draft_of("The", " light", "house", ",", " old", ".")
    assert draft.words == ["The", "lighthouse", "old"]
    assert draft.word_of_token == [0, 1, 1, None, 2, None]
    assert draft.tokens_of_word(1) == [1, 2]
    assert [draft.tokens_until(n) for n in (0, 1, 3, 4, 99)] == [0, 1, 1, 2, 6]


_DRAFTS = st.integers(0, 9).map(lambda n: random_draft(np.random.default_rng(n), [f" w{i}" for i in range(n)]))


@given(_DRAFTS, st.integers(0, 9))
def test_a_draft_cut_in_two_is_the_same_when_joined(draft, at):
    first, second = draft[:at], draft[at:]
    assert len(first) + len(second) == len(draft)
    assert first + second == draft


@given(_DRAFTS)
def test_a_draft_survives_a_round_trip_through_plain_data(draft):
    assert Draft.from_state(json.loads(json.dumps(draft.to_state()))) == draft
    bare = Draft(draft.pieces, draft.logprobs, ended="limit")
    assert Draft.from_state(json.loads(json.dumps(bare.to_state()))) == bare


def test_an_empty_state_is_an_empty_draft():
    assert Draft.from_state(None) == Draft()
    assert not len(Draft())


def test_joined_drafts_keep_a_signal_only_if_both_have_it():
    with_ids, without = draft_of("a", entropies=(0.5,), token_ids=(1,)), draft_of(" b", entropies=(0.7,), ended="end")
    both = with_ids + without
    assert (both.text, both.entropies, both.token_ids, both.ended) == ("a b", (0.5, 0.7), None, "end")
    # An empty draft has no signals to lack.
    assert Draft() + with_ids == with_ids


# ---------------------------------------------------------------------- attention

START, TOKENS = 5, 4


@pytest.fixture
def full():
    return causal_attention(np.random.default_rng(1), heads=2, length=START + TOKENS)


def test_rows_give_the_attention_within_the_draft_and_of_each_token(full):
    rows = rows_of(full, START)
    assert np.allclose(rows.within(TOKENS), full[:, START:, START:])
    for t in range(TOKENS):
        assert np.allclose(rows.of_token(t), full[:, START + t, : START + t + 1].mean(0))
    assert repr(rows) == "AttentionRows(start=5, tokens=4)"


@pytest.mark.parametrize("tokens", range(TOKENS))
def test_shifted_rows_are_those_of_a_draft_that_begins_later(full, tokens):
    shifted, expected = rows_of(full, START).shifted(tokens), rows_of(full, START + tokens)
    assert shifted.start == expected.start
    for found, wanted in zip((*shifted.mean, *shifted.heads), (*expected.mean, *expected.heads), strict=True):
        assert np.allclose(found, wanted)


@pytest.mark.parametrize("known", range(TOKENS))
def test_rows_of_a_continued_draft_are_those_of_the_whole(full, known):
    whole, begun = rows_of(full, START), rows_of(full[:, : START + known, : START + known], START)
    joined = begun.continued(whole.mean[known:], whole.heads[known:])
    assert joined.start == START
    for found, wanted in zip((*joined.mean, *joined.heads), (*whole.mean, *whole.heads), strict=True):
        assert np.allclose(found, wanted)


# ---------------------------------------------------------------------- views and verdicts


def test_only_the_judged_tokens_are_the_unit():
    view = DraftView("Who?", "It is old. It", draft_of(" was", " Wray", ".", " Then"), judged=3)
    assert view.unit.text == " was Wray."
    assert view.last_sentence == "It was Wray."
    assert DraftView("Who?", "", Draft(), 0).last_sentence == ""


def test_stop_words_and_punctuation_carry_no_content():
    view = DraftView("Who?", "", draft_of(*PIECES), len(PIECES))
    assert view.content == [False, True, True, False, True]
    assert [view.token_carries_content(t) for t in range(4)] == [False, True, True, False]


def test_a_view_uses_the_word_filter_that_it_is_given():
    view = DraftView(
        "Who?", "", draft_of("The", " mason"), 2, carries_content=lambda words: [w == "The" for w in words]
    )
    assert view.content == [True, False]


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(False, "quiet"),
        Verdict(True, "loud", (0.5, None), 0.5, 0.4, 0, (0, 1), "own", {"sequences": 2}),
    ],
)
def test_a_verdict_survives_a_round_trip_through_plain_data(verdict):
    assert Verdict.from_state(json.loads(json.dumps(verdict.to_state()))) == verdict
