"""Agents with the middleware: how they are built, and what a run of them shows."""

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from tests.langgraph_dynrag.agents.scripted_agent import AgentModel
from tests.langgraph_dynrag.scripted import WatchedRetriever

ASK = {"messages": [HumanMessage("Who built the Cooper's Bridge?")]}


def agent_of(*replies, tools=(), retriever=None, checkpointer=None, model=None, system_prompt=None, **options):
    model = model or AgentModel(replies=list(replies))
    retriever = retriever or WatchedRetriever()
    middleware = DynamicRetrievalMiddleware(retriever, **options)
    agent = create_agent(
        model, list(tools), middleware=[middleware], checkpointer=checkpointer, system_prompt=system_prompt
    )
    return agent, model, retriever


def answer(result):
    return result["messages"][-1].content


def types(result):
    return [e["type"] for e in result["dynamic_retrieval"]["trace"]]
