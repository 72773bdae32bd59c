"""The record of the question that an agent is answering."""

import json

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag.queries import Question
from langgraph_dynrag.triggers import RIND, TokenProbability
from rag_backbone.errors import SignalUnavailableError
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE, AgentModel
from tests.langgraph_dynrag.agents.watched import agent_of


@pytest.mark.parametrize("trigger", [TokenProbability(), RIND(0.1)])
async def test_missing_signals_can_be_an_error(run, trigger):
    query = Question()
    model = AgentModel(replies=[UNSURE], reports=False)
    agent, _, _ = agent_of(model=model, trigger=trigger, query=query, on_missing_signals="raise")
    with pytest.raises(SignalUnavailableError, match=r"AgentModel (reported no logprob|cannot give attention)"):
        await run(agent)


async def test_another_question_on_the_same_thread_starts_a_new_record(run):
    agent, model, retriever = agent_of(UNSURE, SURE, SURE, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    await run(agent, config=config)
    result = await run(agent, {"messages": [HumanMessage("And who paid?")]}, config=config)
    record = result["dynamic_retrieval"]
    assert (record["question"], record["retrievals"], record["evidence"]) == ("And who paid?", 0, [])
    assert "Aldous Wray was born" not in model.calls[2][-1].content
    assert len(result["messages"]) == 4
    assert len(retriever.queries) == 1


async def test_the_record_is_plain_data(run):
    agent, _, _ = agent_of(UNSURE, SURE, checkpointer=InMemorySaver())
    result = await run(agent, config={"configurable": {"thread_id": "1"}})
    assert json.loads(json.dumps(result["dynamic_retrieval"])) == result["dynamic_retrieval"]
