"""A run's events as rounds."""

import pytest

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from langgraph_dynrag.trace.rounds import rounds_of, seconds_by_node
from tests.langgraph_dynrag.reflective import BRIDGE, reflective_chat, search
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said
from tests.langgraph_dynrag.trace.conftest import QUESTION

BRIDGE_TEXT = "The bridge was built by Aldous Wray."


def of(state):
    trace = Trace.from_state(state)
    return rounds_of(trace.events, trace.drafts)


def run(preset, *replies, **options):
    model = ScriptedChatModel(replies=[said(r) if isinstance(r, str) else r for r in replies])
    retriever = None if preset == "no_retrieval" else WatchedRetriever(give=DOCUMENTS[:2])
    graph = create_dynamic_rag(model, retriever, preset=preset, prompt=AnswerPrompt(), **options)
    return graph.invoke({"question": QUESTION})


def test_a_search_before_the_answer_and_one_for_a_discarded_sentence(result):
    first, second = of(result)
    assert (first.before, first.reason, first.asks) == (None, "initial retrieval", True)
    assert second.before.having("discarded") == "The bridge was built by Joan Pike."
    assert second.regenerated.having("accepted") == BRIDGE_TEXT
    assert [d.having("accepted") for d in second.after] == [BRIDGE_TEXT, " So the answer is Aldous Wray."]
    assert [len(r.searches) for r in (first, second)] == [1, 1]


def test_every_event_is_in_one_round_so_that_their_times_add_up(result):
    rounds = of(result)
    assert [e for r in rounds for e in r.events] == result["trace"]
    whole = seconds_by_node(result["trace"])
    assert sum(sum(r.seconds.values()) for r in rounds) == pytest.approx(sum(whole.values()))


def test_a_run_without_a_search_is_one_round():
    (only,) = of(run("no_retrieval", "So the answer is Hallin."))
    assert not only.asks
    assert [d.text for d in only.after] == ["So the answer is Hallin."]


def test_a_kept_sentence_after_which_is_searched_is_not_replaced():
    text = f"{BRIDGE_TEXT} So the answer is Wray."
    rounds = of(run("fixed_sentence", text, " So the answer is Wray."))
    assert [r.asks for r in rounds] == [True, True]
    assert rounds[1].before.having("accepted") == BRIDGE_TEXT
    assert not rounds[1].discards
    assert rounds[1].regenerated is None


def test_a_regenerated_sentence_that_is_discarded_again_ends_one_round_and_begins_the_next():
    doubtful = said("The bridge was built by Joan Pike. Then it was", Joan=0.1)
    certain = said(f"{BRIDGE_TEXT} So it is")
    rounds = of(run("flare", doubtful, doubtful, certain, " So the answer is Wray.", recheck=True))
    assert [r.before is not None for r in rounds] == [False, True, True]
    assert rounds[1].regenerated is rounds[2].before
    assert rounds[2].regenerated.having("accepted") == BRIDGE_TEXT


def test_each_segment_of_judged_continuations_is_a_round():
    graph = create_dynamic_rag(reflective_chat(), WatchedRetriever(give=search), preset="self_rag")
    rounds = of(graph.invoke({"question": BRIDGE}))
    assert [len(r.searches) for r in rounds] == [1, 1]


def test_a_run_that_has_just_begun_is_one_round():
    (only,) = of({"trace": [{"type": "question", "question": QUESTION}]})
    assert (only.asks, only.after) == (False, [])
