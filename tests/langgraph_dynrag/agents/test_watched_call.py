"""The steps of a watched call: what is searched, rewritten or kept, and the limits on them."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import RetrievalPolicy, Trace
from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.watched_call import CallModel, Compute, Given, Paused, Search, watch_call
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.queries import ExplicitQuestion, MaskedSentence, Question
from langgraph_dynrag.triggers import EverySentence, Never, Once
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE, AgentModel, calling, population
from tests.langgraph_dynrag.agents.watched import ASK, agent_of, answer, types
from tests.langgraph_dynrag.scripted import WatchedRetriever, said


async def test_tool_calls_are_left_alone_and_the_answer_after_them_is_watched(run):
    agent, model, retriever = agent_of(calling(town="Brannoch"), UNSURE, SURE, tools=[population])
    result = await run(agent)
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert result["messages"][2].content == "Brannoch has 1200 inhabitants."
    assert answer(result) == "The bridge was built by Aldous Wray."
    assert len(retriever.queries) == 1
    # The evidence is added to the question's message; the messages after it do not change.
    assert [type(m) for m in model.calls[2]] == [HumanMessage, AIMessage, ToolMessage]
    assert "Aldous Wray" in model.calls[2][0].content
    assert model.calls[2][0].id == result["messages"][0].id


async def test_an_agent_that_only_calls_tools_is_left_alone(run):
    calls = [calling(town="A"), calling(town="B"), calling(town="C")]
    agent, model, retriever = agent_of(*calls, AIMessage(""), tools=[population])
    result = await run(agent, config={"recursion_limit": 20})
    assert retriever.queries == []
    assert len(model.calls) == 4
    only = create_agent(AgentModel(replies=calls), [population], middleware=[DynamicRetrievalMiddleware(retriever)])
    seen = [s async for s in only.astream(ASK, stream_mode="values", interrupt_before=["tools"])]
    assert "dynamic_retrieval" not in seen[-1]
    assert [c["args"] for c in seen[-1]["messages"][-1].tool_calls] == [{"town": "A"}]
    assert types(result) == ["question", "draft", "accepted", "answer"]


async def test_evidence_survives_a_tool_call_within_the_question(run):
    agent, model, _ = agent_of(UNSURE, calling(town="Hallin"), SURE, tools=[population])
    result = await run(agent)
    assert "Aldous Wray" in model.calls[2][0].content
    assert result["dynamic_retrieval"]["retrievals"] == 1
    assert answer(result) == "The bridge was built by Aldous Wray."


async def test_a_rewrite_that_repeats_a_tool_call_keeps_the_earlier_answer(run):
    """Otherwise an agent that already had an answer would call the same tool endlessly."""
    agent, _, _ = agent_of(calling(town="A"), UNSURE, calling(town="A"), tools=[population])
    result = await run(agent)
    assert answer(result) == "The bridge was built by Joan Pike."
    assert [type(m) for m in result["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert "the answer before was kept: the rewrite was a repeated call of population" in str(
        Trace.from_state(result["dynamic_retrieval"])
    )
    agent, _, _ = agent_of(calling(town="A"), UNSURE, calling(town="B"), SURE, tools=[population])
    assert answer(await run(agent)) == "The bridge was built by Aldous Wray."
    both = calling(town="A")
    both.tool_calls.append({**both.tool_calls[0], "args": {"town": "B"}, "id": "other"})
    agent, _, _ = agent_of(calling(town="A"), UNSURE, both, SURE, tools=[population])  # one of the two is new
    assert answer(await run(agent)) == "The bridge was built by Aldous Wray."


async def test_rounds_are_bounded(run):
    words = [said(f"It was {name}.", **{name: 0.1}) for name in ("Joan", "Tamsin", "Hallin", "Pike")]
    finds = iter([[Document(f"Fact {i}.", id=str(i))] for i in range(9)])
    agent, model, retriever = agent_of(
        *words, max_rounds=2, retriever=WatchedRetriever(give=lambda _: next(finds)), query=Question()
    )
    result = await run(agent)
    assert answer(result) == "It was Hallin."
    assert (len(model.calls), len(retriever.queries)) == (3, 2)
    # The latest passages come first.
    assert "[1] Fact 1.\n[2] Fact 0." in model.calls[2][-1].content


async def test_searches_are_bounded_over_all_model_calls_for_a_question(run):
    finds = iter([[Document(f"Fact {i}.", id=str(i))] for i in range(9)])
    retriever = WatchedRetriever(give=lambda _: next(finds))
    two = said("Joan built it. Pike paid for it.", Joan=0.1, Pike=0.1)
    agent, _, _ = agent_of(
        two, calling(town="A"), two, tools=[population], retriever=retriever, max_searches=2, query=MaskedSentence()
    )
    result = await run(agent)
    assert sorted(retriever.queries) == ["built it.", "paid for it."]  # they may run at the same time
    assert result["dynamic_retrieval"]["retrievals"] == 2
    assert {"type": "budget", "which": "searches", "limit": 2} in result["dynamic_retrieval"]["trace"]


async def test_queries_of_one_round_are_bounded(run):
    three = said("Joan built it. Pike paid for it. Hallin slept.", Joan=0.1, Pike=0.1, Hallin=0.1)
    agent, _, retriever = agent_of(three, SURE, max_queries=2)
    await run(agent)
    assert len(retriever.queries) == 2


@pytest.mark.parametrize("give", [[], RuntimeError("no index"), "same"])
async def test_the_answer_is_kept_if_a_search_brings_nothing_new(run, give):
    same = [Document("Fact.", id="1")]
    retriever = WatchedRetriever(give=same if give == "same" else give)
    agent, model, _ = agent_of(UNSURE, UNSURE, UNSURE, retriever=retriever, max_rounds=2)
    result = await run(agent)
    assert answer(result) == "The bridge was built by Joan Pike."
    assert len(model.calls) == (2 if give == "same" else 1)
    if isinstance(give, Exception):
        event = next(e for e in result["dynamic_retrieval"]["trace"] if e["type"] == "retrieval")
        assert "no index" in event["error"]


async def test_a_retriever_error_can_end_the_run(run):
    agent, _, _ = agent_of(
        UNSURE, retriever=WatchedRetriever(give=OSError("gone")), retrieval=RetrievalPolicy(on_error="raise")
    )
    with pytest.raises(RuntimeError, match="gone"):
        await run(agent)


async def test_without_log_probabilities_the_answer_is_kept_and_recorded_as_unwatched(run, caplog):
    agent, model, retriever = agent_of(model=AgentModel(replies=[UNSURE], reports=False))
    result = await run(agent)
    assert answer(result) == "The bridge was built by Joan Pike."
    assert (len(model.calls), retriever.queries) == (1, [])
    event = next(e for e in result["dynamic_retrieval"]["trace"] if e["type"] == "degraded")
    assert event["reason"] == "AgentModel reported no logprob with an answer"
    assert "was not watched" in caplog.text
    assert "not watched: AgentModel reported no" in str(Trace.from_state(result["dynamic_retrieval"]))


async def test_log_probabilities_may_be_missing_from_some_answers(run):
    # The first answer is a message without log-probabilities; the answers to the second question have them.
    plain = AIMessage("It was Joan.")
    agent, model, retriever = agent_of(plain, UNSURE, SURE, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    first = await run(agent, config=config)
    assert "degraded" in types(first)
    second = await run(agent, {"messages": [HumanMessage("Who built it?")]}, config=config)
    assert "degraded" not in types(second)
    assert answer(second) == "The bridge was built by Aldous Wray."
    assert len(retriever.queries) == 1
    assert len(model.calls) == 3


async def test_a_model_that_refuses_log_probabilities_is_called_without_them(run):
    refusal = ValueError("logprobs is not supported")
    agent, model, _ = agent_of(refusal, calling(town="A"), SURE, tools=[population])
    result = await run(agent)
    assert answer(result) == "The bridge was built by Aldous Wray."
    assert ["logprobs" in o for o in model.options] == [True, False, False]  # not requested again for this question
    assert types(result).count("degraded") == 1


async def test_the_first_answer_is_kept_if_the_model_refuses_the_passages(run):
    """A model may refuse them if they make the request too long."""
    agent, _, _ = agent_of(UNSURE, ValueError("too long"), ValueError("too long"))
    result = await run(agent)
    assert answer(result) == "The bridge was built by Joan Pike."
    told = str(Trace.from_state(result["dynamic_retrieval"]))
    assert "the answer before was kept: AgentModel refused the passages (too long)" in told
    broken, _, _ = agent_of(UNSURE, ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await run(broken)


async def test_other_model_errors_are_not_treated_as_refusals(run):
    agent, model, _ = agent_of(ConnectionError("down"))
    with pytest.raises(ConnectionError, match="down"):
        await run(agent)
    assert len(model.calls) == 1


async def test_retrieval_before_the_answer_happens_once_per_question(run):
    agent, model, retriever = agent_of(calling(town="A"), SURE, tools=[population], trigger=Once(), query=Question())
    await run(agent)
    assert retriever.queries == ["Who built the Cooper's Bridge?"]
    assert all("Aldous Wray" in call[0].content for call in model.calls)


async def test_a_trigger_that_reads_no_signals_works_without_them(run):
    model = AgentModel(replies=[said("It stands."), SURE], reports=False)
    agent, _, retriever = agent_of(model=model, trigger=EverySentence(), query=Question())
    assert answer(await run(agent)) == "The bridge was built by Aldous Wray."
    agent, _, retriever = agent_of(SURE, trigger=Never(), query=Question())
    await run(agent)
    assert retriever.queries == []


async def test_a_query_formulator_may_ask_the_model(run):
    agent, model, retriever = agent_of(UNSURE, said("Who built the bridge?"), SURE, query=ExplicitQuestion())
    result = await run(agent)
    assert retriever.queries == ["Who built the bridge?"]
    assert '"Joan Pike"' in model.calls[1][0].content
    assert answer(result) == "The bridge was built by Aldous Wray."


async def test_an_empty_answer_is_left_as_it_is(run):
    agent, model, retriever = agent_of([])
    result = await run(agent)
    assert answer(result) == ""
    assert (len(model.calls), retriever.queries) == (1, [])


# ---------------------------------------------------------------------- one pass, driven by hand


def request(*messages):
    return ModelRequest(model=AgentModel(replies=[]), messages=list(messages), model_settings={})


def test_a_request_without_a_question_is_passed_on_unwatched():
    course = watch_call(WatchOptions(retriever=WatchedRetriever()), asked := request(AIMessage("Hello.")), None)
    assert next(course) == CallModel(asked, hidden=False)
    response = ModelResponse([AIMessage("Hi.")])
    with pytest.raises(StopIteration) as end:
        course.send(response)
    assert end.value.value == Given(response, None)


def test_a_pass_asks_for_one_task_at_a_time():
    options = WatchOptions(retriever=WatchedRetriever(), trigger=EverySentence(), query=Question())
    course = watch_call(options, request(HumanMessage("Who built it?")), None)
    check = next(course)
    assert isinstance(check, Compute)
    call = course.send(check.function())
    assert isinstance(call, CallModel)
    assert call.hidden
    look = course.send(ModelResponse([AIMessage("It was Joan.")]))
    assert isinstance(look, Compute)
    plan = course.send(look.function())
    searching = course.send(plan.function())
    assert isinstance(searching, Search)
    assert searching.state["queries"] == ["Who built it?"]
    event = {"type": "retrieval", "query": "Who built it?", "documents": [], "error": None}
    fact = passage("Aldous Wray built it.", {}, None)
    update = {"found": [fact], "seen": [fact["id"]], "asked": ["Who built it?"], "retrievals": 1, "identical": 0}
    with pytest.raises(StopIteration) as end:
        course.send({**update, "trace": [event]})
    paused = end.value.value
    assert isinstance(paused, Paused)
    assert (paused.written, paused.asking, paused.record["rounds"]) == (1, None, 1)
    assert paused.record["evidence"] == [fact]
    assert repr(paused) == "<answer withheld: 'It was Joan.'>"
    withheld = paused.given("the limit was reached")
    assert withheld.response.result[0].content == "It was Joan."
    assert withheld.record["warnings"] == ["the answer was unsure and was not rewritten: the limit was reached"]


def test_an_error_of_the_model_ends_the_pass():
    options = WatchOptions(retriever=WatchedRetriever())
    course = watch_call(options, request(HumanMessage("Who built it?")), None)
    course.send(next(course).function())
    with pytest.raises(ConnectionError, match="gone"):
        course.throw(ConnectionError("gone"))
