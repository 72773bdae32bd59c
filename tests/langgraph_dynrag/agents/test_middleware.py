"""The middleware in agents built by `create_agent`, with a scripted model and decisions worked out by hand."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langgraph_dynrag import Trace
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE
from tests.langgraph_dynrag.agents.watched import ASK, agent_of, answer, types
from tests.langgraph_dynrag.scripted import WatchedRetriever


async def test_an_unsure_answer_is_rewritten_with_the_evidence_found(run):
    agent, model, retriever = agent_of(UNSURE, SURE, system_prompt="Be brief.")
    result = await run(agent)
    assert answer(result) == "The bridge was built by Aldous Wray."
    # The question, and FLARE's query: the sentence without the two words below 0.4.
    assert retriever.queries == ["Who built the Cooper's Bridge? The bridge was built by ."]
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage]
    system, asked = model.calls[1]
    assert isinstance(system, SystemMessage)
    assert "built by the mason Aldous Wray" in asked.content
    assert asked.content.endswith("Who built the Cooper's Bridge?")
    record = result["dynamic_retrieval"]
    assert (record["retrievals"], record["rounds"]) == (1, 1)
    assert record["sources"][0]["title"] == "Bridge"
    assert types(result) == ["question", "draft", "verdict", "retrieval", "resume", "draft", "accepted", "answer"]


async def test_a_sure_answer_costs_one_call_and_no_search(run):
    agent, model, retriever = agent_of(SURE)
    result = await run(agent)
    assert answer(result) == "The bridge was built by Aldous Wray."
    assert (len(model.calls), retriever.queries) == (1, [])
    assert types(result) == ["question", "draft", "verdict", "accepted", "answer"]


async def test_the_trace_shows_which_words_were_discarded_and_where_it_fired(run):
    agent, _, _ = agent_of(UNSURE, SURE)
    trace = Trace.from_state((await run(agent))["dynamic_retrieval"])
    first, second = trace.drafts
    assert {t.fate for t in first.tokens} == {"discarded"}
    assert [t.text for t in first.tokens if t.fired] == [" Joan"]
    assert first.tokens[5].probability == pytest.approx(0.2)
    assert {t.fate for t in second.tokens} == {"accepted"}
    assert trace.counts["retrievals"] == 1
    assert "discarded: The bridge was built by Joan Pike." in str(trace)


def test_hidden_drafts_never_reach_the_messages_stream():
    agent, _, _ = agent_of(UNSURE, SURE)
    shown = "".join(m.content for m, _ in agent.stream(ASK, stream_mode="messages"))
    assert shown == "The bridge was built by Aldous Wray."
    agent, _, _ = agent_of(SURE)
    shown = "".join(m.content for m, _ in agent.stream(ASK, stream_mode="messages"))
    assert shown == "The bridge was built by Aldous Wray."
    agent, _, _ = agent_of(UNSURE, SURE, drafts="streamed")
    shown = "".join(m.content for m, _ in agent.stream(ASK, stream_mode="messages"))
    assert shown == "The bridge was built by Joan Pike.The bridge was built by Aldous Wray."


async def test_the_last_rewrite_streams_token_by_token():
    agent, _, _ = agent_of(UNSURE, SURE)
    chunks = [m.content async for m, _ in agent.astream(ASK, stream_mode="messages") if m.content]
    assert len(chunks) == len(SURE)
    agent, _, _ = agent_of(SURE)  # accepted at once: one message
    assert len([m async for m, _ in agent.astream(ASK, stream_mode="messages") if m.content]) == 1


def test_events_are_streamed_as_custom_events():
    agent, _, _ = agent_of(UNSURE, SURE)
    events = list(agent.stream(ASK, stream_mode="custom"))
    assert [e["type"] for e in events] == [
        "draft",
        "verdict",
        "retrieval",
        "resume",
        "draft",
        "accepted",
        "answer",
    ]


async def test_async_agents_do_not_block_the_event_loop():
    import asyncio

    agent, _, _ = agent_of(UNSURE, SURE, retriever=WatchedRetriever(delay=0.3))
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await agent.ainvoke(ASK)
    ticking.cancel()
    assert ticks > 5
