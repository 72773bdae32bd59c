"""Features of a sentence, worked out by hand."""

import math
from dataclasses import replace

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.triggers.features import FEATURES, check_names, features_of, signals_of
from rag_backbone.errors import ConfigurationError

PIECES = ("The", " bridge", " was", " built", " by", " Joan", " Pi", "ke", ".", " Then", " nothing")
LOGPROBS = (-0.1, -0.2, -0.05, -0.3, -0.01, -2.0, -1.5, -0.4, -3.0, -9.0, -9.0)
ENTROPIES = (5.0, 0.5, 4.0, 0.6, 0.1, 2.0, 1.0, 0.2, 3.0, 9.0, 9.0)
DRAFT = Draft(PIECES, LOGPROBS, ENTROPIES)
VIEW = DraftView("Who?", "It stands. It is old. ", DRAFT, judged=9)  # the full stop is the least probable token


def value(name, view=VIEW):
    return features_of(view, [name])[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("least_logprob", -3.0),
        ("second_logprob", -2.0),
        ("least_in_content", 0),
        ("least_in_name", 0),
        ("least_name_logprob", -2.0),
        ("least_new_name_logprob", -2.0),
        ("greatest_entropy", 2.0),  # not 5.0 or 4.0 of the stop words, nor 3.0 of the full stop
        ("mean_entropy", sum(ENTROPIES[:9]) / 9),
        ("sentence_number", 2),
        ("content_words", 4),  # bridge, built, Joan, Pike
        ("names", 2),
        ("new_names", 2),
        ("evidence_in_prompt", 0),
        ("names_in_evidence", None),
    ],
)
def test_worked_example(name, expected):
    found = value(name)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_the_least_probable_token_within_a_name_counts_by_its_word():
    sure = replace(VIEW, draft=Draft(PIECES, (*LOGPROBS[:8], -0.1, *LOGPROBS[9:]), ENTROPIES))
    assert (value("least_logprob", sure), value("least_in_name", sure), value("least_in_content", sure)) == (-2, 1, 1)


def test_names_of_the_question_and_of_the_answer_so_far_are_not_new():
    view = replace(VIEW, question="Who knew Joan's bridge?")
    assert (value("names", view), value("new_names", view)) == (2, 1)
    assert value("least_new_name_logprob", view) == -1.5  # of " Pi", not of " Joan"
    view = replace(view, accepted="It is Pike's. ")
    assert (value("new_names", view), value("least_new_name_logprob", view)) == (0, 0)


def test_evidence_holds_names_in_any_case_and_with_a_possessive():
    view = replace(VIEW, passages=(passage("JOAN's toll.", {"title": "Bridges"}, "Who?"),))
    assert value("evidence_in_prompt", view) == 1
    assert value("names_in_evidence", view) == 0.5


def test_the_rarest_new_name_comes_from_the_index():
    documents = [Document("Joan kept the toll."), Document("Joan and Pike met."), Document("A town.")]
    retriever = BM25Retriever.from_documents(documents)
    assert [retriever.document_frequency(w) for w in ("Joan", "Pike", "Wray", "the", "")] == [2, 1, 0, None, None]
    view = replace(VIEW, document_frequency=retriever.document_frequency)
    assert value("rarest_new_name", view) == pytest.approx(math.log(2))
    assert value("rarest_new_name", replace(view, accepted="Pike. ")) == pytest.approx(math.log(3))
    nameless = replace(view, draft=Draft(("Nothing",), (-0.1,), (0.2,)), judged=0)
    assert value("rarest_new_name", nameless) is None


def test_what_a_sentence_does_not_have_is_none():
    view = DraftView("Who?", "", Draft((" it",), (-0.5,), (0.3,)), 1)
    names = [n for n in FEATURES if not FEATURES[n].index]
    found = dict(zip(names, features_of(view, names), strict=True))
    assert {n for n, v in found.items() if v is None} == {
        "second_logprob",
        "least_name_logprob",
        "greatest_entropy",
        "names_in_evidence",
    }
    assert found["sentence_number"] == 0


def test_signals_are_those_of_the_features():
    assert signals_of(["sentence_number"]) == frozenset()
    assert signals_of(["names", "mean_entropy", "least_logprob"]) == {"entropy", "logprob"}


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "no features"), (["least_logprop"], "did you mean"), (["names", "names"], "named twice")],
)
def test_wrong_names_are_refused(names, message):
    with pytest.raises(ConfigurationError, match=message):
        check_names(names)
