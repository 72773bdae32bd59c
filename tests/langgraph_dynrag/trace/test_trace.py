"""The trace as text and as data."""

import json

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"


def test_tokens_have_probabilities_scores_and_fates(result):
    trace = Trace.from_state(result)
    first = trace.drafts[0]
    joan = next(t for t in first.tokens if t.text == " Joan")
    assert joan.fired
    assert joan.fate == "discarded"
    assert joan.probability == pytest.approx(0.1)
    assert next(t for t in first.tokens if t.text == " Then").fate == "looked ahead"
    assert sum(t.fired for d in trace.drafts for t in d.tokens) == 1
    accepted = "".join(t.text for d in trace.drafts for t in d.tokens if t.fate == "accepted")
    assert accepted.strip() == result["answer"]


def test_counts_and_seconds(result):
    trace = Trace.from_state(result)
    assert trace.counts["retrievals"] == len(trace.retrievals) == 2
    assert trace.counts["nothing_new"] == sum(all(not d["new"] for d in r["documents"]) for r in trace.retrievals)
    assert set(trace.seconds) >= {"begin", "generate", "monitor", "retrieve", "reformulate", "resume"}
    assert all(s >= 0 for s in trace.seconds.values())
    assert repr(trace) == f"Trace({QUESTION!r}: 2 retrievals, {len(trace.drafts)} drafts)"


def test_the_text_shows_the_run_in_order(result):
    text = str(Trace.from_state(result))
    story = [
        "Question: Who built",
        f"searched: {QUESTION}",
        "discarded: The bridge was built by Joan Pike.",
        "at 'Joan'",
        "searched: The bridge was built by Pike.",
        "wrote: The bridge was built by Aldous Wray.",
        "Answer: ",
        "Short answer: Aldous Wray",
        "[1] Bridge",
        "2 retrievals",
    ]
    places = [text.find(part) for part in story]
    assert -1 not in places, story[places.index(-1)]
    assert places == sorted(places)


def test_the_data_can_be_stored_as_json(result):
    told = json.loads(json.dumps(Trace.from_state(result).to_dict()))
    assert told["short_answer"] == "Aldous Wray"
    assert [s["number"] for s in told["sources"]] == list(range(1, len(told["sources"]) + 1))


def test_an_unfinished_run_has_a_trace(result):
    events = result["trace"][:4]
    trace = Trace.from_state({"trace": events})
    assert trace.question == QUESTION
    assert trace.answer == ""
    assert str(trace)


def test_a_run_interrupted_before_its_search_shows_the_draft():
    model = ScriptedChatModel(replies=[said("The bridge was built by Joan Pike. Then it was", Joan=0.1)])
    graph = create_dynamic_rag(
        model,
        WatchedRetriever(),
        preset="flare",
        initial_retrieval=False,
        prompt=AnswerPrompt(),
        checkpointer=InMemorySaver(),
        interrupt_before=["retrieve"],
    )
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"question": QUESTION}, config)
    text = str(Trace.from_state(graph.get_state(config).values))
    assert "  drafted: The bridge was built by Joan Pike. Then it\n  -> " in text


@pytest.mark.parametrize("state", [{}, {"messages": []}, {"trace": []}])
def test_a_state_without_a_trace_is_rejected(state):
    with pytest.raises(ConfigurationError, match="pass the result of graph.invoke"):
        Trace.from_state(state)
