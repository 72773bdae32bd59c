"""What every node does around its own work: overrides, time, usage, and the version of a state."""

import asyncio

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Overwrite

from langgraph_dynrag import DynamicRAGContext, DynamicRAGState
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.state import StateVersionError
from tests.langgraph_dynrag.running import scripted_settings


class Own(Node):
    """Returns what it is given, and records the settings that it was run with."""

    node_name = "own"

    def __init__(self, settings, update=None, asks=()):
        super().__init__(settings)
        self.update, self.asks, self.seen = update or {}, asks, []

    def run(self, state, settings, config):
        self.seen.append(settings)
        for prompt in self.asks:
            settings.generator.ask([prompt], config)
        return {**self.update}


def test_a_node_is_callable_synchronously_and_asynchronously():
    node = Own(scripted_settings(), {"text": "It was"})
    assert node({})["text"] == node.invoke({})["text"] == asyncio.run(node.ainvoke({}))["text"] == "It was"
    assert repr(node) == "Own()"


def test_its_working_time_is_added_to_that_of_earlier_steps():
    update = Own(scripted_settings())({"seconds": {"own": 5.0, "generate": 1.0}})
    assert update["seconds"]["own"] > 5.0
    assert update["seconds"]["generate"] == 1.0
    # A node that starts a run clears the times of an earlier one.
    assert Own(scripted_settings(), {"seconds": {}})({"seconds": {"own": 5.0}})["seconds"]["own"] < 5.0


def test_its_name_is_on_every_event_and_its_time_on_the_first():
    update = Own(scripted_settings(), {"trace": [{"type": "a"}, {"type": "b"}]})({})
    first, second = update["trace"]
    assert (first["node"], second["node"]) == ("own", "own")
    assert first["seconds"] >= 0
    assert "seconds" not in second
    measured = Own(scripted_settings(), {"trace": [{"type": "a", "seconds": 7.0}]})({})
    assert measured["trace"][0]["seconds"] == 7.0


def test_calls_of_a_model_are_recorded_even_without_an_event():
    settings = scripted_settings("a", "b")
    (event,) = Own(settings, asks=["One?", "Two?"])({})["trace"]
    assert event["type"] == "calls"
    assert event["usage"] == {"calls": 2, "reported": 0, "tokens": None}
    with_event = Own(scripted_settings("a"), {"trace": [{"type": "own"}]}, asks=["One?"])({})
    assert [e["type"] for e in with_event["trace"]] == ["own"]
    assert with_event["trace"][0]["usage"]["calls"] == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_the_final_message_carries_the_usage_of_the_whole_run(replaced):
    earlier = {"type": "draft", "usage": {"calls": 3, "reported": 1, "tokens": None}}
    trace = [{"type": "answer"}]
    update = {"stage": "done", "messages": [AIMessage("It was.")], "trace": Overwrite(trace) if replaced else trace}
    (message,) = Own(scripted_settings("a"), update, asks=["One?"])({"trace": [earlier]})["messages"]
    own = message.response_metadata["dynprag"]
    assert own["calls"] == (1 if replaced else 4)
    assert own["calls_with_usage"] == (0 if replaced else 1)


def test_a_state_of_another_version_is_refused_before_any_work():
    node = Own(scripted_settings())
    with pytest.raises(StateVersionError, match="state version 0; .* reads state version 1"):
        node({"version": 0})
    with pytest.raises(StateVersionError):
        asyncio.run(node.ainvoke({"version": 2}))
    assert node.seen == []


def test_a_runs_context_overrides_the_settings_for_that_run():
    node = Own(scripted_settings())
    builder = StateGraph(DynamicRAGState, context_schema=DynamicRAGContext)
    builder.add_node("own", node).add_edge(START, "own").add_edge("own", END)
    graph = builder.compile()
    graph.invoke({"question": "Who?"}, context=DynamicRAGContext(k=7))
    graph.invoke({"question": "Who?"})
    assert node.seen[0].k == 7
    assert node.seen[1] is node.settings
