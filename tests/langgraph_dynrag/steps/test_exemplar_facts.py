"""Facts from worked examples in an answer cause a warning, and the built-in examples are invented."""

import logging

import pytest

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from langgraph_dynrag.prompts import Exemplar, reasoned_prompt
from langgraph_dynrag.search_tags.formats import SEARCH
from langgraph_dynrag.search_tags.prompts import tag_prompt
from langgraph_dynrag.steps.exemplar_facts import exemplar_facts
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

OWN = (
    Exemplar(
        "Where was Johannes Kepler born?",
        "Johannes Kepler was born in Weil der Stadt in 1571. So the answer is Weil der Stadt.",
    ),
    Exemplar("Is Prague in Bohemia?", "Prague lies in Bohemia. So the answer is Yes."),
    Exemplar("长城在哪里?", "长城在北京附近。So the answer is 北京."),
)


@pytest.mark.parametrize(
    ("short", "found"),
    [
        ("Weil der Stadt", ["Weil der Stadt"]),
        ("in the town of weil der stadt.", ["weil der stadt"]),
        ("1571", ["1571"]),
        ("the city of Prague", ["Prague"]),
        ("北京", ["北京"]),
        ("Yes", []),
        ("no", []),
        ("Hallin", []),
        ("", []),
    ],
)
def test_one_name_or_number_in_the_short_answer_is_a_leak(short, found):
    assert exemplar_facts(f"So the answer is {short}.", short, OWN, ["Where was Joan Pike born?"]) == found


@pytest.mark.parametrize("known", ["Weil der Stadt is a town.", "He was born at WEIL DER STADT."])
def test_facts_in_the_question_or_passages_are_not_leaks(known):
    assert exemplar_facts("He was born in Weil der Stadt.", "Weil der Stadt", OWN, [known]) == []


def test_the_reasoning_leaks_only_with_two_names_in_a_row():
    reasoning = "Joan Pike, like Johannes Kepler, lived in Prague. So the answer is Hallin."
    assert exemplar_facts(reasoning, "Hallin", OWN, ["Where was Joan Pike born?"]) == ["Johannes Kepler"]


def test_nothing_leaks_without_examples():
    assert exemplar_facts("Weil der Stadt.", "Weil der Stadt", (), []) == []


def run(prompt, reply, **options):
    model = ScriptedChatModel(replies=[said(reply)])
    return create_dynamic_rag(model, prompt=prompt, **options).invoke({"question": "Where was Joan Pike born?"})


@pytest.mark.parametrize("prompt", [AnswerPrompt(exemplars=OWN), reasoned_prompt(8)], ids=["own", "default"])
def test_a_leak_is_logged_and_reported_in_trace_and_result(prompt, caplog):
    leaked = "Weil der Stadt" if prompt.exemplars == OWN else "Oberhalden"
    with caplog.at_level(logging.WARNING):
        out = run(prompt, f"Joan Pike was born in {leaked}. So the answer is {leaked}.", preset="no_retrieval")
    assert out["short_answer"] == leaked
    [told] = out["warnings"]
    assert f"{leaked!r} from a worked example" in told
    assert told in caplog.text
    assert [e["facts"] for e in out["trace"] if e["type"] == "exemplar"] == [[leaked]]
    assert told in str(Trace.from_state(out))


def test_without_an_answer_phrase_the_whole_text_is_checked():
    prompt = AnswerPrompt(exemplars=(Exemplar("Who wrote it?", "Ansel Dorvany."),), answer_phrase=None)
    assert "'Dorvany' from a worked example" in run(prompt, "It was Dorvany.", preset="no_retrieval")["warnings"][0]


def test_facts_that_were_retrieved_as_well_are_not_leaks():
    prompt = AnswerPrompt(exemplars=(Exemplar("Who built it?", "So the answer is Aldous Wray."),))
    model = ScriptedChatModel(replies=[said("So the answer is Aldous Wray.")])
    graph = create_dynamic_rag(model, WatchedRetriever(), preset="single", prompt=prompt)
    assert graph.invoke({"question": "Who built the bridge?"})["warnings"] == []


@pytest.mark.parametrize("exemplars", [reasoned_prompt(8).exemplars, tag_prompt(SEARCH).exemplars])
def test_the_built_in_examples_name_nothing_real(exemplars):
    text = " ".join(f"{e.question} {e.answer}" for e in exemplars)
    for real in ("Kepler", "Weil der Stadt", "Sweden", "Laval", "Zagreb", "Metropolis", "Victoria", "Eddystone"):
        assert real not in text
