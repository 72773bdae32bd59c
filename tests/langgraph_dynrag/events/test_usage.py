"""Token usage reported by providers: summed over all calls of a run, and None if it is not reported."""

import json

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_openai import ChatOpenAI

from langgraph_dynrag import AnswerPrompt, LocalChatModel, ServerPolicy, Trace, create_dynamic_rag
from langgraph_dynrag.agents import create_dynamic_rag_tool
from langgraph_dynrag.events.usage import Usage, UsageMeter
from langgraph_dynrag.queries import ExplicitQuestion
from langgraph_dynrag.triggers import EverySentence, Never, TokenProbability
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever
from tests.openai_server import serving

TEXT = "The bridge was built by Aldous Wray. He was born in the village of Hallin. So the answer is Hallin."
QUESTION = {"question": "Where was the builder of the bridge born?"}


def graph(server, *, model=None, preset="flare", **options):
    chat = ChatOpenAI(base_url=server.url, model="base", api_key="none", max_retries=0, timeout=20, **(model or {}))
    retriever = None if preset == "no_retrieval" else WatchedRetriever(give=DOCUMENTS[:2])
    chosen = {} if preset == "no_retrieval" else {"trigger": TokenProbability(0.5), "initial_retrieval": False}
    return create_dynamic_rag(
        chat,
        retriever,
        preset=preset,
        prompt=AnswerPrompt(),
        server=ServerPolicy(first_wait=0.01),
        **{**chosen, **options},
    )


async def run(built, asynchronous, question=QUESTION):
    return await built.ainvoke(question) if asynchronous else built.invoke(question)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_final_message_carries_the_usage_of_its_call(asynchronous):
    with serving(TEXT, cached=7) as server:
        built = graph(server, preset="no_retrieval")
        server.requests.clear()
        result = await run(built, asynchronous)
        used = [server.used(body, server.tokens("/chat/completions", body)) for body in server.asked()]
        told = result["messages"][-1].usage_metadata
        assert told["input_tokens"] == sum(u["prompt_tokens"] for u in used) > 0
        assert told["output_tokens"] == sum(u["completion_tokens"] for u in used) > 0
        assert told["input_token_details"]["cache_read"] == 7 * len(used)
        assert f"usage of {len(used)} model call" in str(Trace.from_state(result))
        assert "cache read input: 7" in str(Trace.from_state(result))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_query_and_rewrite_calls_count_and_abandoned_streams_are_reported(asynchronous):
    with serving(TEXT, Hallin=0.1) as server:
        built = graph(server, query=ExplicitQuestion())
        server.requests.clear()
        result = await run(built, asynchronous)
        usage = Trace.from_state(result).usage
        own = result["messages"][-1].response_metadata["dynprag"]
        assert usage.calls == len(server.asked()) == own["calls"] > 2
        assert 0 < usage.reported < usage.calls
        assert own["calls_with_usage"] == usage.reported
        assert result["messages"][-1].usage_metadata == usage.tokens
        assert f"reported by {usage.reported} of them" in str(Trace.from_state(result))


@pytest.mark.parametrize("server", [{"usage": False}, {"refuses_usage": True}], ids=["never", "refused"])
@pytest.mark.parametrize("attempts", [1, 3])
def test_usage_is_none_and_the_trace_says_so_if_no_call_reports_any(server, attempts):
    with serving(TEXT, **server) as server:
        built = create_dynamic_rag(
            ChatOpenAI(base_url=server.url, model="base", api_key="none", max_retries=0),
            preset="no_retrieval",
            prompt=AnswerPrompt(),
            server=ServerPolicy(first_wait=0.01, attempts=attempts),
        )
        server.requests.clear()
        result = built.invoke(QUESTION)
        assert result["messages"][-1].usage_metadata is None
        trace = Trace.from_state(result)
        assert "not reported" in str(trace)
        assert "not reported" in trace._repr_html_()
        assert trace.to_dict()["usage"] == {"calls": 1, "reported": 0, "tokens": None}
        assert "forward_tokens" not in trace.counts
        assert "0 forward" not in str(trace)
        assert "retries" not in trace.drafts[0].cost
        count = len(server.asked())
        built.invoke(QUESTION)
        assert len(server.asked()) - count == 1  # a rejected request is not sent again


def test_usage_is_none_if_the_user_disables_it_for_streams():
    with serving(TEXT) as server:
        built = graph(server, preset="no_retrieval", model={"stream_usage": False})
        server.requests.clear()
        assert built.invoke(QUESTION)["messages"][-1].usage_metadata is None
        assert all("stream_options" not in body for body in server.asked())


def test_the_usage_of_a_local_model_is_summed(tiny_lm):
    model = LocalChatModel.from_causal_lm(tiny_lm)
    built = create_dynamic_rag(
        model, WatchedRetriever(give=DOCUMENTS[:1]), preset="flare", prompt=AnswerPrompt(), trigger=EverySentence()
    )
    result = built.invoke(QUESTION)
    usage = Trace.from_state(result).usage
    assert usage.calls == usage.reported > 0
    assert result["messages"][-1].usage_metadata == usage.tokens
    assert Trace.from_state(result).counts["forward_tokens"] > 0


def test_a_second_question_on_a_thread_starts_a_new_sum(tiny_lm):
    from langgraph.checkpoint.memory import InMemorySaver

    model = LocalChatModel.from_causal_lm(tiny_lm)
    built = create_dynamic_rag(model, preset="no_retrieval", prompt=AnswerPrompt(), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    first = built.invoke(QUESTION, config)["messages"][-1].usage_metadata
    second = built.invoke({"question": "And where was he born, that builder?"}, config)["messages"][-1].usage_metadata
    assert second["output_tokens"] < first["output_tokens"] + second["input_tokens"]
    assert second["input_tokens"] < 2 * first["input_tokens"]


def test_the_messages_stream_ends_with_the_usage(tiny_lm):
    model = LocalChatModel.from_causal_lm(tiny_lm)
    built = create_dynamic_rag(model, preset="no_retrieval", prompt=AnswerPrompt())
    chunks = [m for m, _ in built.stream(QUESTION, stream_mode="messages")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    result = built.invoke(QUESTION)
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == result["answer"]
    assert whole.usage_metadata == result["messages"][-1].usage_metadata


def test_the_artifact_of_the_tool_carries_the_usage(tiny_lm):
    model = LocalChatModel.from_causal_lm(tiny_lm)
    tool = create_dynamic_rag_tool(
        create_dynamic_rag(model, WatchedRetriever(give=DOCUMENTS[:1]), trigger=Never(), prompt=AnswerPrompt())
    )
    call = {"name": tool.name, "args": {"question": "Where?"}, "id": "1", "type": "tool_call"}
    artifact = tool.invoke(call).artifact
    assert artifact["usage"]["tokens"]["output_tokens"] > 0
    assert json.loads(json.dumps(artifact["usage"])) == artifact["usage"]


def test_usage_reported_only_for_the_whole_result_is_read():
    meter = UsageMeter()
    message = ChatGeneration(message=AIMessage("Yes."))
    meter.on_llm_end(
        LLMResult(generations=[[message]], llm_output={"token_usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    )
    meter.on_llm_end(LLMResult(generations=[[message]]))
    meter.on_llm_error(ConnectionError("gone"))
    assert meter.usage == Usage(2, 1, {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
