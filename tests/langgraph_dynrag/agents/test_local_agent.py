"""The middleware with a real local model: its signals, tools in its prompt, checkpoints and streams."""

import json

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.agents.judged_answer import WatchedAnswer, judge_answer
from langgraph_dynrag.agents.requests import question_context
from langgraph_dynrag.drafts.collector import rows_from_scores
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.queries import QFS
from langgraph_dynrag.triggers import ETC, RIND, TokenProbability
from rag_backbone.engine.requests import Request
from rag_backbone.text.units import not_a_stop_word
from tests.langgraph_dynrag.agents.scripted_agent import population
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever

ASK = {"messages": [HumanMessage("Who built the bridge in the capital?")]}


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm, max_tokens=30)


def agent_of(chat, tools=(population,), checkpointer=None, **options):
    retriever = WatchedRetriever(give=DOCUMENTS[:2])
    middleware = DynamicRetrievalMiddleware(retriever, **options)
    agent = create_agent(chat, list(tools), middleware=[middleware], checkpointer=checkpointer, system_prompt="Answer.")
    return agent, retriever


@pytest.mark.parametrize("trigger", [TokenProbability(1.0), ETC(0.0), RIND(0.0), RIND(0.0, "reference")], ids=str)
def test_every_trigger_can_watch_the_answers_of_a_local_model(chat, trigger):
    query = {"query": QFS(5)} if "attention" in trigger.needs else {}
    agent, retriever = agent_of(chat, trigger=trigger, **query)
    result = agent.invoke(ASK)
    record = result["dynamic_retrieval"]
    assert record["rounds"] == 1
    assert len(retriever.queries) >= 1
    assert record["trace"][2]["retrieve"]
    assert result["messages"][-1].content.strip() == record["answer"]
    assert json.loads(json.dumps(record)) == record
    assert "dynprag" not in result["messages"][-1].response_metadata


def test_watching_does_not_change_the_answer_of_the_model(chat):
    agent, _ = agent_of(chat, trigger=TokenProbability(0.0))
    watched = agent.invoke(ASK)["messages"][-1]
    bare = create_agent(chat, [population], system_prompt="Answer.").invoke(ASK)["messages"][-1]
    assert watched.content == bare.content
    assert watched.response_metadata == bare.response_metadata
    assert watched.usage_metadata == bare.usage_metadata


def test_scores_and_query_equal_those_of_a_second_forward_pass_over_prompt_and_answer(chat):
    """Tools in the prompt shift the position of the question; attention is still read at the right tokens."""
    trigger, query = RIND(0.0), QFS(4)
    agent, retriever = agent_of(chat, trigger=trigger, query=query, max_queries=1)
    record = agent.invoke(ASK)["dynamic_retrieval"]
    draft, verdict = record["trace"][1], record["trace"][2]
    request = _Request(chat)
    prompt = chat.encode([request.system_message, *ASK["messages"], AIMessage("")], _tools()).ids
    ids = [step.token_id for step in chat.lm.engine.generate(Request(prompt, 30)).steps]
    scored = chat.lm.engine.score(prompt, ids, attention=True)
    again = Draft(tuple(draft["pieces"]), tuple(draft["logprobs"]), tuple(draft["entropies"]), tuple(ids), "limit")
    assert len(ids) == len(draft["pieces"])
    assert scored.entropies.tolist() == pytest.approx(draft["entropies"], abs=1e-3)
    question = ASK["messages"][0].content
    written = WatchedAnswer(
        question,
        again,
        rows_from_scores(scored.attention.numpy(), len(prompt)),
        question_context(request, question),
    )
    needs, whole = judge_answer(written, trigger, not_a_stop_word())
    assert whole.position == verdict["position"]
    pairs = zip(whole.scores, verdict["scores"], strict=True)
    assert all((a is None) == (b is None) and (a is None or a == pytest.approx(b, abs=1e-3)) for a, b in pairs)
    assert retriever.queries[0] == query.plan(needs[0].view, needs[0].verdict).queries[0]
    assert set("".join(written.context.question).split()) == set(question.split())


def _tools():
    from langchain_core.utils.function_calling import convert_to_openai_tool

    return [convert_to_openai_tool(population)]


class _Request:
    """The parts of a request that `question_context` reads."""

    def __init__(self, model):
        from langchain_core.messages import SystemMessage

        self.model = model
        self.system_message = SystemMessage("Answer.")
        self.tools = [population]
        self.messages = ASK["messages"]


def test_a_checkpointed_thread_continues_with_another_question(chat, tmp_path):
    config = {"configurable": {"thread_id": "t"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
        agent, _ = agent_of(chat, checkpointer=saver, trigger=RIND(0.0), query=QFS(3))
        first = agent.invoke(ASK, config)
    with SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
        agent, _ = agent_of(chat, checkpointer=saver, trigger=RIND(0.0), query=QFS(3))
        saved = agent.get_state(config).values
        assert saved["dynamic_retrieval"] == first["dynamic_retrieval"]
        second = agent.invoke({"messages": [HumanMessage("Who wrote a letter?")]}, config)
    assert second["dynamic_retrieval"]["question"] == "Who wrote a letter?"
    assert len(second["messages"]) == 4


async def test_an_asynchronous_run_gives_the_same_answer_and_streams_it(chat, tmp_path):
    sync, _ = agent_of(chat, trigger=TokenProbability(1.0))
    expected = sync.invoke(ASK)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
        agent, _ = agent_of(chat, checkpointer=saver, trigger=TokenProbability(1.0))
        config = {"configurable": {"thread_id": "t"}}
        parts = [p async for p in agent.astream(ASK, config, stream_mode=["messages", "custom", "values"])]
    shown = "".join(p[0].content for mode, p in parts if mode == "messages")
    final = [p for mode, p in parts if mode == "values"][-1]
    assert shown == final["messages"][-1].content == expected["messages"][-1].content
    assert len([1 for mode, p in parts if mode == "messages" and p[0].content]) > 5  # the rewrite, token by token
    assert "retrieval" in [p["type"] for mode, p in parts if mode == "custom"]


def test_the_evidence_fits_into_the_context_window(tiny_lm):
    """Passages that do not fit next to a long conversation are truncated or left out, and this is recorded."""
    long = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=20)
    asked = "word " * ((tiny_lm.context_window - 500) // 3)
    while len(long.get_token_ids(asked)) > tiny_lm.context_window - 330:
        asked = asked[: len(asked) * 19 // 20]
    retriever = WatchedRetriever(give=[d.model_copy(update={"page_content": "stone " * 900}) for d in DOCUMENTS[:1]])
    middleware = DynamicRetrievalMiddleware(retriever, trigger=TokenProbability(1.0))
    agent = create_agent(long, [], middleware=[middleware])
    result = agent.invoke({"messages": [HumanMessage(asked + " Who built the bridge?")]})
    assert result["messages"][-1].content
    assert any("shortened_or_left_out" in e for e in result["dynamic_retrieval"]["trace"])


def test_the_first_answer_is_kept_if_no_passage_fits(tiny_lm):
    chat = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=20)
    asked = "Who built the bridge? " * 400
    ids = len(chat.encode([HumanMessage(asked)]).ids)
    while ids > tiny_lm.context_window - 40:
        asked = asked[: len(asked) - max(len(asked) // 50, 4)]
        ids = len(chat.encode([HumanMessage(asked)]).ids)
    middleware = DynamicRetrievalMiddleware(WatchedRetriever(give=DOCUMENTS[:2]), trigger=TokenProbability(1.0))
    agent = create_agent(chat, [], middleware=[middleware])
    record = agent.invoke({"messages": [HumanMessage(asked)]})["dynamic_retrieval"]
    assert (record["retrievals"] > 0, record["rounds"]) == (True, 0)
