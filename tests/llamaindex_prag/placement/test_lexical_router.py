"""Tests of the lexical router against BM25 written out, and that words decide where dense scores do not."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.lexical_router import LexicalRouter, answering, bm25_scores, coverage, standardised
from rag_backbone.errors import ConfigurationError

WORDS = ["bridge", "river", "lamp", "tower", "mason"]


def bm25_by_definition(question, texts):
    """Robertson's BM25 in Lucene's variant: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), k1 = 1.5, b = 0.75."""
    documents = [text.split() for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for word in question.split():
            n = sum(word in d for d in documents)
            if n:
                idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
                score += idf * counts[word] / (counts[word] + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(score)
    return scores


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=2, max_size=5),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join),
)
def test_scores_are_those_of_the_formula(texts, question):
    np.testing.assert_allclose(bm25_scores(question, texts), bm25_by_definition(question, texts), rtol=1e-4, atol=1e-6)


def test_the_sum_of_standardised_scores_is_worked_out_by_hand():
    found = LexicalRouter().scores(
        "Who built the tower?",
        [Candidate("a", "a bridge", score=1.0), Candidate("b", "the tower", score=0.0)],
        [None, None],
    )
    assert found.scores == pytest.approx((0.0, 0.0))  # +1 - 1 and -1 + 1
    found = LexicalRouter().scores("tower", [Candidate("a", "a bridge"), Candidate("b", "the tower")], [None, None])
    assert found.scores == pytest.approx((-1.0, 1.0))  # without retrieval scores, words alone


def test_a_passage_that_names_what_is_asked_for_precedes_one_on_the_same_subject():
    passages = [
        Candidate("near", "Stone bridges of the valley were built by masons of the town.", score=0.61),
        Candidate("right", "The Patient Anna was built by Aldous Wray.", score=0.6),
        Candidate("far", "Bread is baked in ovens.", score=0.1),
    ]
    found = LexicalRouter().scores("Which mason built the Patient Anna?", passages, [None] * 3)
    assert found.scores[1] == max(found.scores)


def test_titles_and_other_scripts_count():
    passages = [Candidate("a", "它建于1902年。", "老桥"), Candidate("b", "它建于1902年。", "灯塔")]
    found = LexicalRouter().scores("灯塔是什么时候建的?", passages, [None, None])
    assert found.scores[1] > found.scores[0]


@pytest.mark.parametrize("scores", [[None, 1.0], [float("nan"), 1.0], [0.5, 0.5]])
def test_scores_that_say_nothing_leave_the_order_to_the_words(scores):
    passages = [Candidate("a", "the tower", score=scores[0]), Candidate("b", "a bridge", score=scores[1])]
    assert LexicalRouter().scores("tower", passages, [None, None]).scores == pytest.approx((1.0, -1.0))


def test_no_common_word_and_a_single_passage_are_no_error():
    assert LexicalRouter().scores("lamp", [Candidate("a", "the tower")], [None]).scores == (0.0,)
    assert LexicalRouter().scores("?", [Candidate("a", "a"), Candidate("b", "b")], [None, None]).scores == (0.0, 0.0)
    assert list(standardised(np.array([]))) == []


def test_the_share_of_words_is_that_of_the_best_sentence_with_the_title():
    passage = Candidate("a", "The tower was built by a mason. A bridge leads over the river.", "Vold")
    assert coverage("mason built tower of Vold", passage) == pytest.approx(1.0)
    assert coverage("mason built bridge", passage) == pytest.approx(2 / 3)  # in different sentences
    assert coverage("of", passage) == 0.0
    assert answering("mason built bridge", passage) == pytest.approx(1 / (1 + math.exp(2.96 - 6.86 * 2 / 3)))


def test_no_passage_acts_if_none_names_what_is_asked_for():
    passages = [Candidate("a", "Bread is baked in ovens.", score=0.4), Candidate("b", "Rivers flow.", score=0.3)]
    found = LexicalRouter().scores("Which mason built the ovens of Vold?", passages, [None, None])
    assert "probability of 0.17 only (bound 0.25)" in found.refused
    none = LexicalRouter().scores("Which mason built the tower of Vold?", passages, [None, None])
    assert "no passage has a word in common with the question" in none.refused
    assert not LexicalRouter(bound=0).scores("Which mason built the tower?", passages, [None, None]).refused
    assert not LexicalRouter().scores("Where is bread baked?", passages, [None, None]).refused


@pytest.mark.parametrize(
    "question",
    ["面包在哪里烤?", "Где пекут хлеб?", "أين يخبز الخبز؟", "パンはどこで焼く?", "Où cuit le pain ?", "🥖?"],
)
def test_a_question_in_another_language_is_refused_with_the_route_that_needs_no_words(question):
    passages = [Candidate("a", "Bread is baked in ovens.", score=0.4), Candidate("b", "Rivers flow.", score=0.3)]
    found = LexicalRouter().scores(question, passages, [None, None])
    assert found.scores == pytest.approx((1.0, -1.0))  # the retrieval scores
    assert "in different languages, route='retrieval' chooses by the retrieval scores" in found.refused
    assert not LexicalRouter(bound=0).scores(question, passages, [None, None]).refused


def test_a_bound_that_is_no_probability_is_refused():
    with pytest.raises(ConfigurationError, match="bound is 1.5"):
        LexicalRouter(bound=1.5)
