"""Self-RAG's nodes: which passages are searched for, and which continuations are kept, on a tiny reflective model."""

import json

import pytest
from langchain_core.messages import AIMessageChunk
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import Budgets, SegmentSelection, Trace, create_dynamic_rag, create_nodes
from langgraph_dynrag.queries import Rewrite
from langgraph_dynrag.reflection.beam import Beam, Hypothesis
from langgraph_dynrag.triggers import Never, Reflection
from tests.langgraph_dynrag.reflective import (
    BRIDGE,
    FIRST,
    GREETING,
    HELLO,
    RIVER,
    SECOND,
    WRONG,
    reflective_chat,
    search,
    segment,
)
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import WatchedRetriever


@pytest.fixture
def chat():
    return reflective_chat()


@pytest.fixture
def retriever():
    return WatchedRetriever(give=search)


def test_a_question_that_needs_passages_gets_them_and_each_segment_has_the_best_continuation(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag").invoke({"question": BRIDGE})
    assert out["answer"] == f"{FIRST} {SECOND}"
    assert retriever.queries == [BRIDGE, f"{BRIDGE} {FIRST}"]
    assert [s["id"] for s in out["sources"]] == ["built", "born"]
    assert [s["number"] for s in out["sources"]] == [1, 2]


def test_a_question_that_needs_no_passages_is_answered_without(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag").invoke({"question": GREETING})
    assert out["answer"] == HELLO
    assert retriever.queries == []
    (decision,) = events(out, "reflection")[0]["decisions"]
    assert (decision["retrieve"], decision["keep"]) == (False, False)


@pytest.mark.parametrize(("mode", "searches"), [("always", 1), ("never", 0)])
def test_the_modes_always_and_never_do_not_ask_the_model(chat, mode, searches):
    retriever = WatchedRetriever(give=[RIVER])
    graph = create_dynamic_rag(chat, retriever, preset="self_rag", trigger=Reflection(mode=mode))
    out = graph.invoke({"question": GREETING})
    assert len(retriever.queries) == searches
    assert not events(out, "judgement")
    assert out["answer"] == (WRONG if mode == "always" else HELLO)


def test_never_needs_no_retriever(chat):
    graph = create_dynamic_rag(chat, preset="self_rag", trigger=Never())
    assert graph.invoke({"question": GREETING})["answer"] == HELLO


def test_a_beam_of_one_is_greedy_and_accepts_each_segment_immediately(chat, retriever):
    graph = create_dynamic_rag(chat, retriever, preset="self_rag", selection=SegmentSelection(beam=1))
    parts = [m for m, _ in graph.stream({"question": BRIDGE}, stream_mode="messages")]
    assert [m.content for m in parts] == [FIRST, f" {SECOND}"]
    assert all(isinstance(m, AIMessageChunk) for m in parts)
    wide = create_dynamic_rag(chat, retriever, preset="self_rag")
    parts = [m.content for m, _ in wide.stream({"question": BRIDGE}, stream_mode="messages")]
    assert "".join(parts) == f"{FIRST} {SECOND}"


async def test_async_gives_the_same_result_as_sync(chat, retriever):
    graph = create_dynamic_rag(chat, retriever, preset="self_rag")
    expected = graph.invoke({"question": BRIDGE})
    found = await graph.ainvoke({"question": BRIDGE})
    assert found["answer"] == expected["answer"]
    assert [e["type"] for e in found["trace"]] == [e["type"] for e in expected["trace"]]
    scores = [[c["total"] for e in events(out, "continuations") for c in e["candidates"]] for out in (expected, found)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    asked = create_dynamic_rag(chat, retriever, preset="self_rag", query=Rewrite())
    assert (await asked.ainvoke({"question": BRIDGE}))["answer"] == asked.invoke({"question": BRIDGE})["answer"]


def test_custom_events_report_decisions_tokens_and_candidates(chat, retriever):
    graph = create_dynamic_rag(chat, retriever, preset="self_rag")
    told = list(graph.stream({"question": BRIDGE}, stream_mode="custom"))
    assert {"judgement", "reflection", "query", "retrieval", "token", "continuations", "selection", "answer"} <= {
        e["type"] for e in told
    }
    assert {e["candidate"] for e in told if e["type"] == "token"} == {0, 1, 2}
    json.dumps(told)


def test_every_checkpoint_is_plain_data_and_a_run_resumes_from_each(retriever):
    whole = create_dynamic_rag(reflective_chat(), retriever, preset="self_rag").invoke({"question": BRIDGE})
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    state, steps = {"question": BRIDGE}, 0
    while True:
        # Each time with a new graph on a new engine, as after a restart.
        graph = create_dynamic_rag(
            reflective_chat(), retriever, preset="self_rag", checkpointer=saver, interrupt_after="*"
        )
        graph.invoke(state, config)
        snapshot = graph.get_state(config)
        json.dumps({name: value for name, value in snapshot.values.items() if name != "messages"})
        state, steps = None, steps + 1
        if not snapshot.next:
            break
        assert steps < 40
    assert snapshot.values["answer"] == whole["answer"]
    assert snapshot.values["beam"] is None
    assert [e["type"] for e in snapshot.values["trace"]] == [e["type"] for e in whole["trace"]]
    assert retriever.queries[2:] == retriever.queries[:2]  # no query was repeated


def test_a_second_question_on_the_same_thread_starts_with_a_clean_state(chat, retriever):
    graph = create_dynamic_rag(chat, retriever, preset="self_rag", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert graph.invoke({"question": BRIDGE}, config)["answer"] == f"{FIRST} {SECOND}"
    again = graph.invoke({"question": GREETING}, config)
    assert again["answer"] == HELLO
    assert again["sources"] == []


# ---------------------------------------------------------------------------------------------------- limits


def test_when_no_search_is_left_the_answer_continues_without(chat, retriever):
    graph = create_dynamic_rag(chat, retriever, preset="self_rag", budgets=Budgets(retrievals=1))
    out = graph.invoke({"question": BRIDGE})
    assert retriever.queries == [BRIDGE]
    assert out["answer"].startswith(FIRST)
    assert next(e["which"] for e in events(out, "budget")) == "retrievals"
    assert "no search is left" in str(Trace.from_state(out))
    none = create_dynamic_rag(chat, retriever, preset="self_rag", budgets=Budgets(retrievals=0))
    assert none.invoke({"question": BRIDGE})["sources"] == []


def test_two_hypotheses_share_the_remaining_searches(chat, retriever):
    """Both need a search, for different queries; only one is left, and the better hypothesis gets it."""
    nodes = create_nodes(
        chat, retriever, preset="self_rag", trigger=Reflection(mode="always"), budgets=Budgets(retrievals=3)
    )
    beam = Beam(tuple(Hypothesis((segment(text, 1.0),)) for text in (FIRST, WRONG)), judgements=(None, None))
    state = {"question": BRIDGE, "beam": beam.to_state()}
    both = nodes.monitor({**state, "retrievals": 1})
    assert both["queries"] == [f"{BRIDGE} {FIRST}", f"{BRIDGE} {WRONG}"]
    assert both["budget_hit"] is None
    one = nodes.monitor({**state, "retrievals": 2})
    assert one["queries"] == [f"{BRIDGE} {FIRST}"]
    decisions = [h.decision for h in Beam.from_state(one["beam"]).hypotheses]
    assert [d.retrieve for d in decisions] == [True, False]
    assert decisions[1].reason == "always retrieves; no search is left"
    assert one["budget_hit"] == "retrievals"


def test_the_token_budget_ends_the_answer_with_the_best_hypothesis(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag", budgets=Budgets(tokens=4)).invoke({"question": BRIDGE})
    assert out["answer"] == FIRST
    assert sum(len(d.tokens) for d in Trace.from_state(out).drafts) == 4
    assert "tokens" in [e["which"] for e in events(out, "budget")]


def test_the_depth_ends_the_answer_and_is_recorded(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag", selection=SegmentSelection(depth=1)).invoke(
        {"question": BRIDGE}
    )
    assert out["answer"] == FIRST
    assert events(out, "budget") == [{"type": "budget", "which": "segments", "limit": 1, "node": "monitor"}]
    assert "budget reached: segments (1)" in str(Trace.from_state(out))


def test_the_time_budget_ends_the_answer_and_is_recorded(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag", budgets=Budgets(seconds=1e-6)).invoke(
        {"question": BRIDGE}
    )
    assert "seconds" in [e["which"] for e in events(out, "budget")]
    assert retriever.queries == []


@pytest.mark.parametrize("found", [[], ValueError("index lost")])
def test_an_unsuccessful_search_is_recorded_and_the_answer_continues_without(chat, found):
    out = create_dynamic_rag(chat, WatchedRetriever(give=found), preset="self_rag").invoke({"question": BRIDGE})
    assert out["answer"].startswith(WRONG)
    assert out["sources"] == []
    assert {c["passage"] is None for e in events(out, "continuations") for c in e["candidates"]} == {True}
    assert any(e.get("problem") == "nothing found" for e in events(out, "reformulation"))
