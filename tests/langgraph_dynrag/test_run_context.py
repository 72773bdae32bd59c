"""The context that applies is ours, given as an instance or a dict, and never one of a parent graph."""

from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from langgraph_dynrag import DynamicRAGContext, DynamicRAGState, create_nodes
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever
from tests.langgraph_dynrag.test_graph import PROMPT, QUESTION, scripted_graph


class Own(TypedDict):
    user_id: str
    k: int


OWN: Own = {"user_id": "u", "k": 1}  # at run time, a TypedDict is a dict


def parent_of(node, schema):
    builder = StateGraph(DynamicRAGState, context_schema=schema)
    builder.add_node("rag", node)
    builder.add_edge(START, "rag")
    builder.add_edge("rag", END)
    return builder.compile()


def found(out):
    return [len(e["documents"]) for e in out["trace"] if e["type"] == "retrieval"]


async def test_a_parents_own_context_is_ignored():
    expected = found(scripted_graph().invoke({"question": QUESTION}))
    assert max(expected) > 1
    assert found(parent_of(scripted_graph(), Own).invoke({"question": QUESTION}, context=OWN)) == expected
    assert found(await parent_of(scripted_graph(), Own).ainvoke({"question": QUESTION}, context=OWN)) == expected


def test_a_parents_own_context_is_ignored_by_nodes_in_a_custom_graph():
    nodes = create_nodes(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="no_retrieval", prompt=PROMPT)
    out = parent_of(nodes.retrieve, Own).invoke({"question": QUESTION, "queries": [QUESTION]}, context=OWN)
    assert len(out["found"]) > 1


def test_a_parent_may_use_our_context():
    parent = parent_of(scripted_graph(), DynamicRAGContext)
    assert set(found(parent.invoke({"question": QUESTION}, context={"k": 1}))) == {1}


async def test_a_dict_given_to_the_graph_itself_becomes_our_context():
    assert set(found(scripted_graph().invoke({"question": QUESTION}, context={"k": 1}))) == {1}
    assert set(found(await scripted_graph().ainvoke({"question": QUESTION}, context={"k": 1}))) == {1}
