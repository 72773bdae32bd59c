"""What is said about hand-made results, and what is not."""

import pytest

from langgraph_dynrag.evaluation.scores import difference_of, row_of
from langgraph_dynrag.evaluation.verdict import verdict_of
from tests.langgraph_dynrag.evaluation.test_scores import FAILED, result


def said(methods, *, complete=True):
    """Return the verdict as one text, from the results of each method."""
    rows = [row_of(m, rs, (), 0) for m, rs in methods.items()]
    pairs = [(m, b) for b in ("single", "long_context") if b in methods for m in methods if m != b]
    found = [difference_of(m, methods[m], b, methods[b], 0) for m, b in pairs]
    return "\n".join(verdict_of(rows, found, complete=complete))


def scores(values, **more):
    return [result(float(v), answer=str(v), **more) for v in values]


def test_a_clear_gain_is_told_with_its_interval():
    text = said(
        {
            "no_retrieval": scores([0] * 20, searches=0, read=50),
            "single": scores([1] * 10 + [0] * 10),
            "flare": scores([1] * 18 + [0] * 2, searches=3, read=300),
        }
    )
    assert "Searching once before the answer raises F1 over answering without documents: +0.50 [+0.3" in text
    assert "F1 is higher than with one search: `flare` +0.40 [+0.2" in text
    assert "without a gain" not in text
    assert "In short: `flare` answered these questions better than one search" in text


def test_what_the_interval_does_not_show_is_not_claimed():
    text = said(
        {
            "no_retrieval": scores([1] * 9 + [0] * 11, searches=0, read=50),
            "single": scores([0] * 2 + [1] * 10 + [0] * 8),
            "flare": scores([1] * 11 + [0] * 9, searches=3, read=300),
        }
    )
    assert "do not show that searching once changes F1" in text
    assert "No method differs in F1 from one search by more than these 20 questions can show." in text
    assert "Costs more than one search, without a gain that is shown: `flare` (3.0 searches, 2.7 times" in text
    assert "raises" not in text
    assert "higher than" not in text
    assert "In short: these questions do not show that any way of searching is worth its cost." in text


def test_five_questions_that_differ_are_too_few_whatever_the_bootstrap_says():
    base = {"single": scores([0] * 20)}
    assert "higher" not in said({**base, "flare": scores([1] * 5 + [0] * 15)})  # its interval excludes 0
    assert "higher" in said({**base, "flare": scores([1] * 6 + [0] * 14)})


def test_fewer_searches_are_told_with_what_they_leave_open():
    text = said(
        {
            "single": scores([1] * 12 + [0] * 8),
            "flare@0.3": [*scores([0], searches=0, read=60), *scores([1] * 11, searches=0, read=60), *scores([0] * 8)],
        }
    )
    assert "`flare@0.3` gives the same short answer as one search in 19 of 20 questions" in text
    assert "0.4 searches instead of 1.0" in text
    assert "do not rule out an F1 that is 0.15 lower" in text
    assert "`flare@0.3` searched less than `single`; no loss of F1 is shown, though one of up to 0.15 is not" in text


def test_equal_scores_are_no_proof_of_equality():
    text = said({"single": scores([1] * 20), "flare": scores([1] * 20, searches=0)})
    assert "its F1 is that of one search in 20 of 20 questions" in text
    assert "All methods have the same F1 on each of the 20 questions; other questions may tell them apart." in text
    assert "rule out" not in text


@pytest.mark.parametrize("n", [1, 9])
def test_fewer_than_ten_questions_are_too_few(n):
    text = said({"no_retrieval": scores([0] * n), "single": scores([1] * n), "flare": scores([1] * n)})
    assert f"{n} question" in text
    assert "too few: the intervals are too wide to call any method better or worse" in text
    assert "raises" not in text


def test_without_answers_only_costs_are_compared():
    text = said({"single": [result(None)] * 20, "flare": [result(None, searches=2, read=285)] * 20})
    assert "The questions have no answers, so only cost and searches are compared" in text
    assert "`single` 1.0 searches and 115 tokens; `flare` 2.0 searches and 300 tokens" in text
    assert "F1" not in text


def test_a_run_that_was_stopped_or_failed_says_so():
    text = said({"single": scores([1] * 20), "flare": [*scores([1] * 19), FAILED]}, complete=False)
    assert "Stopped before the end: all of this is about the 20 questions that were finished." in text
    assert "Some of the 20 questions failed, which lowers a method's scores: flare (1)." in text
    assert "nothing to compare" in said({"single": [], "flare": []}, complete=False)


def test_many_comparisons_come_with_a_warning():
    methods = {"single": scores([0] * 20), **{f"m{i}": scores([1] * 8 + [0] * 12) for i in range(3)}}
    assert "With 3 methods compared, one in twenty is expected beyond its interval by chance." in said(methods)


def test_long_context_is_compared_with_one_search():
    text = said({"single": scores([0] * 20), "long_context": scores([1] * 12 + [0] * 8, read=900)})
    assert "Reading many passages up front (`long_context`) changes F1 against one search by +0.60" in text
    assert "8.0 times the tokens" in text
    assert "In short: more passages up front answered these questions better" in text


def test_a_gain_of_one_search_alone_is_the_short_answer():
    text = said(
        {
            "no_retrieval": scores([0] * 20, searches=0, read=50),
            "single": scores([1] * 20),
            "flare": scores([1] * 19 + [0], searches=2, read=300),
        }
    )
    assert "In short: one search is worth it on these questions; nothing shows that searching while writing is" in text
    lost = {"no_retrieval": scores([1] * 20, searches=0), "single": scores([0] * 20)}
    assert "In short: these questions were answered better without documents." in said(lost)
