"""Rows and paired differences, worked out by hand."""

import pytest

from langgraph_dynrag.evaluation.scores import Failure, Measure, difference_of, row_of

FAILED = Failure("ServerError: down", scored=True, supported=False)


def result(f1, *, searches=1, read=100, answer="x", **more):
    return {
        "short_answer": answer,
        "em": None if f1 is None else float(f1 == 1),
        "f1": f1,
        "contains": None if f1 is None else float(f1 > 0),
        "recall": None,
        "retrievals": searches,
        "read_tokens": read,
        "generated_tokens": 10,
        "sampled_tokens": 5,
        "seconds": 2.0,
        **more,
    }


def test_a_row_holds_means_over_the_questions():
    row = row_of("flare", [result(1.0, searches=2), result(0.5, searches=1)], [0.25, None], 0)
    assert (row.questions, row.scored, row.failures) == (2, 2, 0)
    assert (row.em.value, row.f1.value, row.contains.value) == (0.5, 0.75, 1.0)
    assert (row.f1.low, row.f1.high) == (0.5, 1.0)
    assert (row.searches.value, row.read_tokens.value, row.written_tokens.value) == (1.5, 100, 15)
    assert row.recall is None
    assert row.judged.value == 0.25


def test_a_failed_question_is_a_wrong_answer_without_a_cost():
    row = row_of("flare", [result(1.0, searches=2), FAILED], (), 0)
    assert (row.f1.value, row.searches.value, row.failures) == (0.5, 2.0, 1)
    assert row.first_failure == "ServerError: down"


def test_a_failed_search_is_a_failure_with_its_first_message():
    row = row_of("flare", [result(1.0), result(0.0, failed_searches=2, search_error="OSError: gone")], (), 0)
    assert (row.failures, row.first_failure, row.f1.value) == (1, "a search failed: OSError: gone", 0.5)


def test_without_answers_there_is_no_score():
    row = row_of("flare", [result(None), Failure("x", scored=False, supported=False)], (), 0)
    assert (row.em, row.f1, row.contains) == (None, None, None)
    assert row.scored == 0


def test_a_difference_is_paired_by_question():
    ours = [result(1.0, searches=2, answer="The Wray"), result(0.0, searches=0, answer="a"), FAILED]
    theirs = [result(0.5, answer="wray"), result(0.5, answer="b"), result(0.5)]
    found = difference_of("flare", ours, "single", theirs, 0)
    assert found.f1.value == pytest.approx((0.5 - 0.5 - 0.5) / 3)
    assert (found.differing, found.same_answers, found.questions) == (3, 1, 3)
    assert found.searches == Measure.of([1, -1], 0)  # the failed one has no cost
    assert found.tokens.value == 0


def test_a_measure_leaves_out_what_is_not_known():
    assert Measure.of([None, 2.0, 2.0], 0) == Measure(2.0, 2.0, 2.0)
    assert Measure.of([None], 0) is None
    assert str(Measure(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"
