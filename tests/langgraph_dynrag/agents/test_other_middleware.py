"""Combinations with other middleware: their limits, retries and fallbacks apply to each model call, in any order."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    ToolCallLimitMiddleware,
)
from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langgraph_dynrag import Trace
from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.queries import ExplicitQuestion
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE, AgentModel, calling, population
from tests.langgraph_dynrag.agents.watched import ASK
from tests.langgraph_dynrag.scripted import WatchedRetriever, said

DRAFT, FINAL = "The bridge was built by Joan Pike.", "The bridge was built by Aldous Wray."


@pytest.fixture(params=["before", "after"])
def beside(request):
    """Return a function that builds an agent with another middleware before or after ours."""

    def made(other, *replies, tools=(), model=None, checkpointer=None, retriever=None, **options):
        model = model or AgentModel(replies=list(replies))
        ours = DynamicRetrievalMiddleware(retriever or WatchedRetriever(), **options)
        order = [other, ours] if request.param == "before" else [ours, other]
        return create_agent(model, list(tools), middleware=order, checkpointer=checkpointer), model

    return made


def told(result):
    return str(Trace.from_state(result["dynamic_retrieval"]))


@pytest.mark.parametrize("tools", [[], [population]], ids=["no tools", "tools"])
async def test_a_limit_of_one_model_call_keeps_the_first_answer_and_reports_it(run, beside, tools):
    agent, model = beside(ModelCallLimitMiddleware(run_limit=1), UNSURE, SURE, tools=tools)
    result = await run(agent)
    assert len(model.calls) == 1
    assert result["messages"][-1].content == DRAFT
    assert all(m.content for m in result["messages"])  # no placeholder is left
    assert "the answer before was kept: the agent was ended before that (Model call limits" in told(result)
    assert result["dynamic_retrieval"]["answer"] == DRAFT
    assert "was not rewritten" in result["dynamic_retrieval"]["warnings"][0]


async def test_a_limit_that_allows_the_rewrite_has_no_effect(run, beside):
    agent, model = beside(ModelCallLimitMiddleware(run_limit=2), UNSURE, SURE)
    result = await run(agent)
    assert len(model.calls) == 2
    assert [m.content for m in result["messages"][1:]] == [FINAL]


async def test_a_limit_configured_to_raise_still_raises(run, beside):
    agent, model = beside(ModelCallLimitMiddleware(run_limit=1, exit_behavior="error"), UNSURE, SURE)
    with pytest.raises(ModelCallLimitExceededError):
        await run(agent)
    assert len(model.calls) == 1


async def test_a_thread_limit_counts_rewrites(run, beside):
    limit = ModelCallLimitMiddleware(thread_limit=3)
    agent, model = beside(limit, UNSURE, SURE, UNSURE, SURE, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    first = await run(agent, config=config)
    assert first["messages"][-1].content == FINAL
    second = await run(agent, {"messages": [HumanMessage("And who paid for it?")]}, config)
    assert len(model.calls) == 3
    assert second["messages"][-1].content == DRAFT
    third = await run(agent, {"messages": [HumanMessage("When was that?")]}, config)
    assert len(model.calls) == 3
    assert "limit" in third["messages"][-1].content  # not the answer to an earlier question


async def test_an_answer_withheld_before_an_error_is_not_returned_for_the_next_question(run, beside):
    limit = ModelCallLimitMiddleware(run_limit=1, exit_behavior="error")
    agent, model = beside(limit, UNSURE, SURE, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(ModelCallLimitExceededError):
        await run(agent, config=config)
    result = await run(agent, {"messages": [HumanMessage("And who paid for it?")]}, config)
    assert result["messages"][-1].content == FINAL
    assert all(m.content for m in result["messages"])
    assert all(m.content for m in model.calls[-1])


@pytest.mark.parametrize(("limit", "calls"), [(1, 1), (2, 2), (3, 3)])
async def test_a_limit_counts_model_calls_for_queries(run, beside, limit, calls):
    agent, model = beside(
        ModelCallLimitMiddleware(run_limit=limit), UNSURE, said("Who built the bridge?"), SURE, query=ExplicitQuestion()
    )
    result = await run(agent)
    assert len(model.calls) == calls
    assert result["messages"][-1].content == (FINAL if limit == 3 else DRAFT)


async def test_a_failed_rewrite_is_retried_by_the_retry_middleware(run, beside):
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    agent, model = beside(retry, ConnectionError("gone"), UNSURE, ConnectionError("gone"), SURE)
    result = await run(agent)
    assert len(model.calls) == 4
    assert [m.content for m in result["messages"][1:]] == [FINAL]
    assert result["dynamic_retrieval"]["rounds"] == 1


async def test_a_failed_rewrite_falls_back_to_another_model(run, beside):
    second = AgentModel(replies=[SURE])
    agent, _ = beside(ModelFallbackMiddleware(second), UNSURE, ConnectionError("gone"))
    result = await run(agent)
    assert len(second.calls) == 1
    assert "Aldous Wray" in second.calls[0][-1].content  # it also receives the passages
    assert [m.content for m in result["messages"][1:]] == [FINAL]


async def test_a_failed_model_call_for_a_query_is_retried(run, beside):
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    replies = [UNSURE, ConnectionError("gone"), said("Who built the bridge?"), SURE]
    agent, model = beside(retry, *replies, query=ExplicitQuestion())
    assert (await run(agent))["messages"][-1].content == FINAL
    assert len(model.calls) == 4


async def test_a_tool_call_limit_applies_to_a_rewrite_that_calls_a_tool(run, beside):
    limit = ToolCallLimitMiddleware(run_limit=1, exit_behavior="continue")
    agent, _ = beside(limit, calling(town="A"), UNSURE, calling(town="B", why="x"), SURE, SURE, tools=[population])
    result = await run(agent)
    answers = [m for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [m.status for m in answers] == ["success", "error"]
    assert result["messages"][-1].content == FINAL


async def test_human_approval_is_requested_once_per_tool_call(run, beside):
    person = HumanInTheLoopMiddleware(interrupt_on={"population": True})
    agent, _ = beside(person, calling(town="A"), UNSURE, SURE, tools=[population], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    asked = await run(agent, config=config)
    assert len(asked["__interrupt__"]) == 1
    result = await run(agent, Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert "__interrupt__" not in result
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert result["messages"][-1].content == FINAL


async def test_the_final_answer_passes_the_output_filters_of_other_middleware(run, beside):
    mail = said("Write to joan@example.com.")
    agent, _ = beside(
        PIIMiddleware("email", strategy="redact", apply_to_output=True, apply_to_input=False), UNSURE, mail
    )
    assert (await run(agent))["messages"][-1].content == "Write to [REDACTED_EMAIL]."


async def test_summarising_the_conversation_does_not_lose_the_answer(run, beside):
    long = [HumanMessage("Tell me more. " * 30), AIMessage("It is old. " * 30)] * 3
    summary = SummarizationMiddleware(
        AgentModel(replies=[said("Old things.")] * 9), trigger=("messages", 5), keep=("messages", 2)
    )
    agent, _ = beside(summary, UNSURE, SURE)
    result = await run(agent, {"messages": [*(m.model_copy() for m in long), *ASK["messages"]]})
    assert result["messages"][-1].content == FINAL


async def test_a_run_interrupted_while_an_answer_is_withheld_can_be_resumed(run):
    model = AgentModel(replies=[UNSURE, SURE, SURE])
    agent = create_agent(
        model,
        [],
        middleware=[DynamicRetrievalMiddleware(WatchedRetriever())],
        checkpointer=InMemorySaver(),
        interrupt_after=["model"],
    )
    config = {"configurable": {"thread_id": "t"}}
    await run(agent, config=config)
    result = await run(agent, None, config)
    result = await run(agent, None, config)
    assert result["messages"][-1].content == FINAL
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage]
    assert "Aldous Wray" in model.calls[1][-1].content


async def test_after_agent_hooks_see_the_final_answer(run, beside):
    class Seen(AgentMiddleware):
        last = ""

        def after_agent(self, state, runtime):
            self.last = state["messages"][-1].content

    seen = Seen()
    agent, _ = beside(seen, UNSURE, SURE)
    await run(agent)
    assert seen.last == FINAL


async def test_the_final_answer_reports_the_usage_of_withheld_answers_and_queries(run):
    class Reporting(AgentModel):
        def _generate(self, *args, **kwargs):
            made = super()._generate(*args, **kwargs)
            made.generations[0].message.usage_metadata = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
            return made

    model = Reporting(replies=[UNSURE, said("Who built the bridge?"), SURE])
    ours = DynamicRetrievalMiddleware(WatchedRetriever(), query=ExplicitQuestion())
    result = await run(create_agent(model, [], middleware=[ours]))
    assert result["messages"][-1].usage_metadata == {"input_tokens": 30, "output_tokens": 9, "total_tokens": 39}
    trace = Trace.from_state(result["dynamic_retrieval"])
    assert (trace.usage.calls, trace.usage.reported) == (3, 3)
    model = AgentModel(replies=[UNSURE, SURE])
    result = await run(create_agent(model, [], middleware=[DynamicRetrievalMiddleware(WatchedRetriever())]))
    assert result["messages"][-1].usage_metadata is None
    assert "usage of 2 model calls: not reported" in told(result)
