"""Requests with evidence and signal settings, and responses without the signals."""

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

from langgraph_dynrag.queries import Question
from langgraph_dynrag.triggers import Entropy
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE
from tests.langgraph_dynrag.agents.watched import agent_of
from tests.langgraph_dynrag.scripted import WatchedRetriever


async def test_log_probabilities_are_requested_and_removed_from_the_answer(run):
    agent, model, _ = agent_of(UNSURE, SURE)
    result = await run(agent)
    assert all(o["logprobs"] is True for o in model.options)
    assert "logprobs" not in result["messages"][-1].response_metadata


async def test_top_logprobs_are_only_requested_for_triggers_that_need_entropy(run):
    agent, model, _ = agent_of(UNSURE, SURE, trigger=Entropy(0.3), query=Question(), top_logprobs=7)
    await run(agent)
    assert model.options[0]["top_logprobs"] == 7
    agent, model, _ = agent_of(SURE)
    await run(agent)
    assert "top_logprobs" not in model.options[0]


async def test_braces_in_questions_and_passages_are_plain_text(run):
    document = Document("Fact {question}.", id="1")
    agent, model, _ = agent_of(UNSURE, SURE, retriever=WatchedRetriever(give=[document]))
    await run(agent, {"messages": [HumanMessage("What is {passages}?")]})
    assert model.calls[1][-1].content == (
        "Use these passages where they help:\n[1] Fact {question}.\n\nWhat is {passages}?"
    )


async def test_a_question_may_contain_images(run):
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = HumanMessage([{"type": "text", "text": "Who built this bridge?"}, image])
    agent, model, retriever = agent_of(UNSURE, SURE)
    result = await run(agent, {"messages": [asked]})
    first, *rest = model.calls[1][-1].content
    assert "Aldous Wray" in first["text"]
    assert rest == asked.content
    assert retriever.queries[0].startswith("Who built this bridge?")
    assert result["messages"][0].content == asked.content
