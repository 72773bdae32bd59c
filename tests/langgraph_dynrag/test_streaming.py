"""Output of a running graph."""

from langchain_core.messages import AIMessageChunk
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from langgraph_dynrag.streaming import emit, show

EVENT = {"type": "query", "queries": ["a"]}


class State(TypedDict):
    text: str


def speaking(state):
    emit(EVENT)
    show(AIMessageChunk(content="It was", id="1"))
    return {"text": "It was"}


def graph_of(node):
    return StateGraph(State).add_node("own", node).add_edge(START, "own").add_edge("own", END).compile()


def test_events_go_to_the_custom_stream_and_chunks_to_the_messages_stream():
    parts = list(graph_of(speaking).stream({"text": ""}, stream_mode=["custom", "messages"]))
    assert ("custom", EVENT) in parts
    assert [part[0].content for mode, part in parts if mode == "messages"] == ["It was"]


async def test_an_asynchronous_graph_streams_the_same():
    async def speaking_slowly(state):
        return speaking(state)

    parts = [part async for part in graph_of(speaking_slowly).astream({"text": ""}, stream_mode="custom")]
    assert parts == [EVENT]


def test_a_receiver_gets_a_copy_of_the_event():
    (received,) = graph_of(speaking).stream({"text": ""}, stream_mode="custom")
    received["queries"] = []
    received["more"] = 1
    assert EVENT == {"type": "query", "queries": ["a"]}


def test_outside_of_a_graph_nothing_happens():
    emit(EVENT)
    show(AIMessageChunk(content="It was", id="1"))
