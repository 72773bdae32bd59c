"""The benchmark of what a learned trigger gives up on."""

import math
from dataclasses import replace

import pytest

from benchmarks.abstaining import answer, graph_options, label, report_of, thresholds_of, told_of
from benchmarks.datasets import corpus, load_questions
from benchmarks.runs import load_chat
from langgraph_dynrag import create_dynamic_rag
from langgraph_dynrag.calibration.training import LabelledPoint, Trained
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel

MODEL = LearnedModel("logistic", ("least_logprob",), (0.0,), (1.0,), 0.0, weights=(-1.0,))


@pytest.fixture
def asked(squad, model):
    """Return a tiny model, a retriever, and questions with their answers."""
    questions = load_questions(squad)
    return load_chat(str(model), "float32"), BM25Retriever.from_documents(corpus(questions)), questions


def test_an_answer_is_given_up_where_its_highest_probability_says(asked):
    chat, retriever, questions = asked
    trigger = LearnedTrigger(MODEL, 0.5)
    for question in questions[:2]:
        found = answer(chat, retriever, trigger, question)
        highest = max(found["probabilities"])
        for lowest, gives_up in ((highest - 1e-4, True), (highest + 1e-4, False)):
            abstaining = replace(trigger, abstain=lowest)
            out = create_dynamic_rag(chat, retriever, **graph_options(abstaining)).invoke({"question": question.text})
            assert (out["short_answer"] == "I do not know.") is gives_up


def test_labelled_sentences_are_those_of_a_graph_that_searched_first(asked):
    chat, retriever, questions = asked
    points = [LabelledPoint(**p) for p in label(chat, retriever, questions[0])]
    assert points
    assert all(p.values["evidence_in_prompt"] == 1 for p in points)


def test_thresholds_are_those_of_the_held_out_right_sentences_and_none_below_a_search():
    trained = Trained(MODEL, 0.9, (0.8, 1.0), 0.0, (), 0, 0)
    held_out = [LabelledPoint(i, {"least_logprob": -float(i)}, False, None, True) for i in range(30)]
    found = thresholds_of(trained, held_out, 0.1, 0)
    assert set(found) == {0.1, 0.2, 0.3}  # thirty questions are too few for 0.05
    p = sorted(1 / (1 + math.exp(-i)) for i in range(30))
    assert found[0.1] == math.nextafter(p[-1], 2)
    assert found[0.2] == math.nextafter(p[-3], 1)  # P(Binomial(30, 0.2) <= 2) is 0.04, of at most 3 it is 0.12
    assert thresholds_of(trained, held_out, math.nextafter(1, 0), 0)[0.3] == math.nextafter(1, 0)


def test_right_and_wrong_answers_that_are_given_up_are_counted_apart():
    answers = [
        {"f1": f1, "probabilities": ps}
        for f1, ps in ((1.0, [0.1, 0.2]), (1.0, [0.9]), (0.0, [0.1, 0.95]), (0.2, []), (0.0, [0.5]))
    ]
    told = told_of(answers, {0.1: 0.6, 0.2: None}, 0)
    assert (told["n"], told["right"], told["f1"]) == (5, 2, pytest.approx(0.44))
    first, never = told["rows"]
    assert (first["given_up"], first["of_right"], first["of_wrong"]) == (0.4, 0.5, pytest.approx(1 / 3))
    assert first["f1_of_the_rest"] == pytest.approx(0.4)
    assert (never["given_up"], never["f1_of_the_rest"]) == (0, pytest.approx(0.44))
    assert told["auc"] == pytest.approx(0.5)  # of six pairs, three are in order
    everything = told_of(answers[:1], {0.1: 0.0}, 0)
    assert everything["rows"][0]["given_up"] == 1
    assert math.isnan(everything["rows"][0]["f1_of_the_rest"])
    training = {
        "questions": 5,
        "points": 9,
        "needed": 2,
        "right_with_passages": 3,
        "auc": 0.9,
        "auc_interval": (0.8, 1),
    }
    about = {"model": "m", "dtype": "float32", "seed": 0, "complete": False, "training": training}
    report = report_of({**about, "data": {"a_dev": told}})
    assert "5 answers, 2 of them right" in report
    assert "0.50 [0.00, 1.00]" in report
    assert "Stopped before the end" in report
