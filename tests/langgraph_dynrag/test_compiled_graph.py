"""However a graph is run, only its budgets limit an answer, and the newest question is answered."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from langgraph_dynrag import AnswerPrompt, Budgets, DynamicRAGState, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.agents import create_dynamic_rag_tool
from langgraph_dynrag.compiled_graph import DynamicRAGGraph
from langgraph_dynrag.nodes.begin import asked_question
from langgraph_dynrag.triggers import EveryNTokens
from rag_backbone.errors import ContextWindowError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer

ASKED = {"question": "Who built the Cooper's Bridge?"}


@pytest.fixture(scope="module")
def long():
    """A graph whose answers take more than 25 steps."""
    lm = CausalLM(tiny_llama(), tiny_tokenizer())
    prompt = AnswerPrompt(answer_phrase=None, stop=())
    budgets = Budgets(tokens=20, retrievals=1, closing_tokens=1)
    return create_dynamic_rag(
        LocalChatModel.from_causal_lm(lm),
        WatchedRetriever(),
        preset="no_retrieval",
        trigger=EveryNTokens(1),
        prompt=prompt,
        budgets=budgets,
    )


def is_whole(out):
    return sum(e["type"] == "accepted" for e in out["trace"]) > 13  # two steps each


@pytest.mark.parametrize("configured", [None, {"max_concurrency": 1}, [{"tags": ["a"]}]])
def test_a_batch_answers_in_full(long, configured):
    (out,) = long.batch([ASKED], configured)
    assert is_whole(out)
    assert is_whole(next(iter(long.batch_as_completed([ASKED])))[1])


async def test_an_asynchronous_batch_answers_in_full(long):
    (out,) = await long.abatch([ASKED])
    assert is_whole(out)
    done = [found async for found in long.abatch_as_completed([ASKED])]
    assert is_whole(done[0][1])


def in_a_chain(graph):
    return graph | RunnableLambda(lambda out: out)


def called_in_a_chain(graph):
    def call(asked):  # does not pass the configuration on
        return graph.invoke(asked)

    return RunnableLambda(call)


def retried(graph):
    return graph.with_retry(stop_after_attempt=1)


def with_fallbacks(graph):
    return graph.with_fallbacks([RunnableLambda(lambda _: {"trace": []})])


def as_a_node(graph):
    builder = StateGraph(DynamicRAGState)
    builder.add_node("rag", graph)
    builder.add_edge(START, "rag")
    builder.add_edge("rag", END)
    return builder.compile() | RunnableLambda(lambda out: out)


@pytest.mark.parametrize("built", [in_a_chain, called_in_a_chain, retried, with_fallbacks, as_a_node])
def test_a_graph_within_another_runnable_answers_in_full(long, built):
    assert is_whole(built(long).invoke(ASKED))


@pytest.mark.parametrize("built", [in_a_chain, retried, with_fallbacks, as_a_node])
async def test_a_graph_within_another_runnable_answers_in_full_asynchronously(long, built):
    assert is_whole(await built(long).ainvoke(ASKED))


async def test_a_stream_of_events_contains_the_full_answer(long):
    ends = [e async for e in long.astream_events(ASKED, version="v2") if e["event"] == "on_chain_end"]
    assert is_whole(ends[-1]["data"]["output"])


async def test_a_tool_answers_in_full_alone_and_in_a_graph(long):
    tool = create_dynamic_rag_tool(long)
    call = {"name": tool.name, "args": ASKED, "id": "1", "type": "tool_call"}
    assert is_whole(tool.invoke(call).artifact)
    assert is_whole((await tool.ainvoke(call)).artifact)
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([tool]))
    builder.add_edge(START, "tools")
    out = builder.compile().invoke({"messages": [AIMessage("", tool_calls=[call])]})
    assert is_whole(out["messages"][-1].artifact)


def test_an_explicit_step_limit_is_respected(long):
    for run in (long.invoke, in_a_chain(long).invoke, retried(long).invoke):
        with pytest.raises(GraphRecursionError, match="limit of 5 "):
            run(ASKED, {"recursion_limit": 5})
    with pytest.raises(GraphRecursionError):
        long.batch([ASKED], {"recursion_limit": 5})


@pytest.mark.parametrize("beside", [{}, {"tags": ["a"], "callbacks": [], "configurable": {"thread_id": "1"}}])
async def test_a_limit_of_25_given_to_the_graph_itself_is_respected(long, beside):
    config = {"recursion_limit": 25, **beside}
    with pytest.raises(GraphRecursionError, match="limit of 25 "):
        long.invoke(ASKED, config)
    with pytest.raises(GraphRecursionError, match="limit of 25 "):
        await long.ainvoke(ASKED, config)
    with pytest.raises(GraphRecursionError, match="limit of 25 "):
        RunnableLambda(lambda asked: long.invoke(asked, config)).invoke(ASKED)
    assert is_whole(long.invoke(ASKED))


def test_a_graph_with_bound_options_has_the_same_class(long):
    bound = long.with_config(tags=["a"])
    assert type(bound) is type(long) is DynamicRAGGraph
    assert is_whole(bound.invoke(ASKED))


@pytest.mark.parametrize("limit", [5, 25])
def test_a_bound_limit_is_respected(long, limit):
    bound = long.with_config(recursion_limit=limit)
    for run in (bound.invoke, in_a_chain(bound).invoke):
        with pytest.raises(GraphRecursionError, match=f"limit of {limit} "):
            run(ASKED)
    with pytest.raises(GraphRecursionError, match=f"limit of {limit} "):
        bound.batch([ASKED])
    (out,) = long.with_config(tags=["b"]).batch([ASKED])
    assert is_whole(out)


# ---------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    "form", [HumanMessage, lambda text: ("user", text), lambda text: {"role": "user", "content": text}]
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_after_a_rejected_question_the_next_message_is_answered(asynchronous, form):
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer()))
    prompt = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
    graph = create_dynamic_rag(
        chat,
        WatchedRetriever(),
        preset="single",
        prompt=prompt,
        budgets=Budgets(tokens=4),
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t"}}

    async def run(given):
        return await graph.ainvoke(given, config) if asynchronous else graph.invoke(given, config)

    with pytest.raises(ContextWindowError):
        await run({"question": "why " * 3000})
    assert (await run({"messages": [form("Who was Joan Pike?")]}))["question"] == "Who was Joan Pike?"
    with pytest.raises(ContextWindowError):
        await run({"question": "why " * 3000})
    assert (await run({"messages": form("Where is Hallin?")}))["question"] == "Where is Hallin?"
    both = {"question": "Who crosses it?", "messages": [form("Hello")]}
    assert (await run(both))["question"] == "Who crosses it?"


def test_a_message_outside_of_any_thread_is_a_question():
    assert asked_question({"messages": [HumanMessage("Who?")]}) == ("Who?", None)
    assert asked_question({"messages": [HumanMessage("Who?")], "question": "What?"}) == ("What?", None)
