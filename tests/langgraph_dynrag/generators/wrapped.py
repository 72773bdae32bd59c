"""Graphs for any chat model, wrapped or not."""

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from langgraph_dynrag.triggers import TokenProbability
from tests.langgraph_dynrag.generators.served import QUESTION
from tests.langgraph_dynrag.scripted import WatchedRetriever


def graph(model, **options):
    chosen = {"preset": "flare", "initial_retrieval": False, **options}
    if chosen["preset"] == "flare":
        chosen.setdefault("trigger", TokenProbability(0.5))
    retriever = None if chosen["preset"] == "no_retrieval" else WatchedRetriever()
    return create_dynamic_rag(model, retriever, prompt=AnswerPrompt(), **chosen)


async def ask(built, asynchronous):
    return await built.ainvoke(QUESTION) if asynchronous else built.invoke(QUESTION)
