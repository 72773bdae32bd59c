"""FLARE's queries, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.queries import ExplicitQuestion, MaskedSentence
from langgraph_dynrag.queries.flare import uncertain_spans
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view

FIRED = Verdict(True, "test")


def masked(beta, text, probabilities):
    return MaskedSentence(beta).plan(view(text, probabilities), FIRED).queries


@pytest.mark.parametrize(
    ("beta", "query"),
    [
        (0.0, "It was built by Joan Pike."),
        (0.2, "It was built by Pike."),
        (0.5, "It was built by ."),  # a probability equal to beta is masked
        (0.96, "It was built by Joan Pike."),  # nothing would remain
    ],
)
def test_tokens_with_at_most_beta_are_left_out(beta, query):
    assert masked(beta, "It was built by Joan Pike.", {"Joan": 0.1, "Pike": 0.5}) == (query,)


def test_pieces_around_a_masked_one_do_not_run_together():
    draft = Draft(("It", "'s", "Joan", "ette"), tuple(map(math.log, (0.9, 0.1, 0.9, 0.9))))
    assert MaskedSentence(0.4).plan(DraftView("Who?", "", draft, 4), FIRED).queries == ("It Joanette",)


def test_tokens_beyond_the_judged_ones_are_not_part_of_the_query():
    draft = Draft(("It", " was", ".", " Then"), (-0.1,) * 4)
    assert MaskedSentence().plan(DraftView("Who?", "", draft, 3), FIRED).queries == ("It was.",)


def test_spans_are_widened_to_words_and_joined_over_gaps_of_fewer_than_five_tokens():
    text = "Joan Pike built it in 1541, near the town of Hallin."
    spans = uncertain_spans(view(text, {"Joan": 0.1, "it": 0.1, "Hallin": 0.1}), 0.4)
    # "Joan" (0) and "it" (3) are three tokens apart; "Hallin" (11) is eight further on.
    assert spans == ["Joan Pike built it", "Hallin"]
    apart = "Joan built one two three four it."
    assert uncertain_spans(view(apart, {"Joan": 0.1, "it": 0.1}), 0.4) == ["Joan", "it"]
    draft = Draft((" Joan", "ette", " sang"), tuple(map(math.log, (0.9, 0.1, 0.9))))
    assert uncertain_spans(DraftView("Who?", "", draft, 3), 0.4) == ["Joanette"]


def test_uncertain_punctuation_is_no_span_and_a_repeated_span_counts_once():
    assert uncertain_spans(view("It was Joan.", {".": 0.1}), 0.4) == []
    text = "Joan sang for one or two more years, and Joan left."
    assert uncertain_spans(view(text, {"Joan": 0.1}), 0.4) == ["Joan"]


def test_one_question_is_asked_per_span_with_the_text_so_far():
    one, two = (
        ExplicitQuestion()
        .plan(view("Joan built one or two more of them in Hallin.", {"Joan": 0.1, "Hallin": 0.1}, "It is old. "), FIRED)
        .prompts
    )
    assert 'the answer is exactly "Joan"' in one
    assert 'the answer is exactly "Hallin"' in two
    assert "Answer so far: It is old. Joan built one or two more of them in Hallin.\n" in one


def test_without_spans_the_sentence_is_the_query():
    plan = ExplicitQuestion().plan(view(" It was Joan."), FIRED)
    assert (plan.queries, plan.prompts) == (("It was Joan.",), ())


def test_only_distinct_questions_among_the_replies_are_queries():
    replies = ["\n  Who built it?\nI hope this helps.", "Joan built it.", "Who built it?", "?", "", "Where?"]
    assert ExplicitQuestion().finish(view(), FIRED, replies) == ("Who built it?", "Where?")
    assert ExplicitQuestion().finish(view("It was Joan."), FIRED, ["Joan."]) == ("It was Joan.",)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), st.floats(0, 0.99))
def test_exactly_the_tokens_above_beta_are_kept(probabilities, beta):
    pieces = [f" w{i}" for i in range(len(probabilities))]
    draft = Draft(tuple(pieces), tuple(map(math.log, probabilities)))
    (query,) = MaskedSentence(beta).plan(DraftView("Who?", "", draft, len(draft)), FIRED).queries
    kept = [p.strip() for p, logprob in zip(pieces, draft.logprobs, strict=True) if math.exp(logprob) > beta]
    assert query.split() == (kept or [p.strip() for p in pieces])


@pytest.mark.parametrize("kind", [MaskedSentence, ExplicitQuestion])
def test_a_beta_that_masks_everything_is_refused(kind):
    with pytest.raises(ConfigurationError, match="beta is 1.0; a probability from 0"):
        kind(1.0)
