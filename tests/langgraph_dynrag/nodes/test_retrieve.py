"""Failed searches are logged and reported in trace and result; programming errors end the run."""

import asyncio
import logging
import time

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langgraph_dynrag import AnswerPrompt, RetrievalPolicy, Trace, create_dynamic_rag, create_retriever_tool
from langgraph_dynrag.agents import create_dynamic_rag_tool
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"
ANSWER = said("The bridge was built by Aldous Wray. So the answer is Aldous Wray.")


def once(retriever, **options):
    model = ScriptedChatModel(replies=[ANSWER])
    return create_dynamic_rag(model, retriever, preset="single", prompt=AnswerPrompt(), **options)


async def run(graph, *, asynchronous):
    given = {"question": QUESTION}
    return await graph.ainvoke(given) if asynchronous else graph.invoke(given)


class AsyncOnly(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        raise NotImplementedError("use the asynchronous method")

    async def _aget_relevant_documents(self, query, *, run_manager):
        await asyncio.sleep(0)
        return DOCUMENTS[:1]


class AsyncOnlyWithK(AsyncOnly):
    async def _aget_relevant_documents(self, query, *, run_manager, k=3):
        return DOCUMENTS[:k]


class SyncOnly(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS[:1]

    async def _aget_relevant_documents(self, query, *, run_manager):
        raise NotImplementedError("use the synchronous method")


class Coroutine(BaseRetriever):
    async def _get_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS[:1]


async def found(query):
    return DOCUMENTS[:1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failed_search_is_logged_and_reported_with_the_result(asynchronous, caplog):
    graph = once(WatchedRetriever(give=ValueError("index lost")))
    with caplog.at_level(logging.WARNING):
        out = await run(graph, asynchronous=asynchronous)
    logged = [r for r in caplog.records if r.name.startswith("langgraph_dynrag")]
    assert [r.levelname for r in logged] == ["WARNING"]
    assert QUESTION in logged[0].getMessage()
    assert "ValueError: index lost" in logged[0].getMessage()
    expected = "1 of 1 searches failed, and the answer was written without them: ValueError: index lost"
    assert out["warnings"] == [expected]
    assert out["messages"][-1].response_metadata["dynprag"]["warnings"] == [expected]
    trace = Trace.from_state(out)
    assert expected in repr(trace)
    assert f"Warning: {expected}" in str(trace)
    assert expected in trace._repr_html_()
    assert trace.to_dict()["warnings"] == [expected]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_search_timeout_is_reported_as_a_failed_search(asynchronous, caplog):
    graph = once(WatchedRetriever(delay=0.5), retrieval=RetrievalPolicy(timeout=0.05))
    with caplog.at_level(logging.WARNING):
        out = await run(graph, asynchronous=asynchronous)
    assert "no result within 0.05 s" in out["warnings"][0]
    assert "no result within 0.05 s" in caplog.text


async def test_a_run_without_failures_has_no_warnings(caplog):
    out = await run(once(WatchedRetriever()), asynchronous=True)
    assert out["warnings"] == []
    assert "Warning" not in str(Trace.from_state(out))
    assert "warnings" not in out["messages"][-1].response_metadata["dynprag"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("langgraph_dynrag")]


def _validation_error():
    class Row(BaseModel):
        page: int

    try:
        Row(page="x")
    except ValueError as error:
        return error


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("later"),
        TypeError("argument 'k'"),
        AttributeError("'x' has no 'y'"),
        NameError("indx"),
        ImportError("no module"),
        ModuleNotFoundError("no module"),
        AssertionError("never"),
        _validation_error(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_programming_errors_end_the_run_regardless_of_the_policy(error, asynchronous):
    for policy in (RetrievalPolicy(), RetrievalPolicy(on_error="raise"), RetrievalPolicy(timeout=None)):
        with pytest.raises(type(error)) as raised:
            await run(once(WatchedRetriever(give=lambda _: error), retrieval=policy), asynchronous=asynchronous)
        assert QUESTION in raised.value.__notes__[0]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "retriever",
    [
        AsyncOnly(),
        AsyncOnlyWithK(),
        SyncOnly(),
        Coroutine(),
        RunnableLambda(found),
        AsyncOnly().with_retry(),
        AsyncOnly().with_config(tags=["docs"]),
        SyncOnly().with_fallbacks([WatchedRetriever()]),
    ],
    ids=["async", "async k", "sync", "coroutine", "lambda", "retry", "config", "fallbacks"],
)
async def test_a_sync_only_or_async_only_retriever_works_in_both_kinds_of_run(retriever, asynchronous):
    """The synchronous run happens inside a running event loop, as it does in a notebook."""
    out = await run(once(retriever, k=1), asynchronous=asynchronous)
    assert [s["id"] for s in out["sources"]] == ["bridge"]
    tool = create_retriever_tool(retriever)
    text = await tool.ainvoke({"query": "bridge"}) if asynchronous else tool.invoke({"query": "bridge"})
    assert "Aldous Wray" in text


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_timeout_also_applies_to_async_only_retrievers(asynchronous):
    async def slow(query):
        await asyncio.sleep(5)

    started = time.monotonic()
    out = await run(once(RunnableLambda(slow), retrieval=RetrievalPolicy(timeout=0.05)), asynchronous=asynchronous)
    assert "no result within" in out["warnings"][0]
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (["A text."], r"'A text.' \(str\).*Document\(page_content=text\)"),
        ("A text.", r"returned 'A text.' \(str\); a list of LangChain Documents"),
        (None, "returned None .*lack a `return`"),
        ({"documents": []}, "returned {'documents': ..}"),
        ([{"text": "A text."}], r"Document\(page_content=found\['text'\]"),
        ([(Document("A text."), 0.5)], r"\[document for document, score in found\]"),
        ([None], r"None \(NoneType\)"),
        (7, r"returned 7 \(int\)"),
    ],
)
async def test_the_return_value_of_a_retriever_is_validated_immediately(returned, message, asynchronous):
    for retriever in (WatchedRetriever(give=lambda _: returned), RunnableLambda(lambda _: returned)):
        with pytest.raises(ConfigurationError, match=message):
            await run(once(retriever), asynchronous=asynchronous)
        with pytest.raises(ConfigurationError, match=message):
            create_retriever_tool(retriever).invoke({"query": QUESTION})


def test_llama_index_nodes_are_recognised_and_rejected():
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text="A text."), score=1.0)]
    with pytest.raises(ConfigurationError, match=r"RunnableLambda\(lambda query: \[Document\(n.text"):
        once(RunnableLambda(lambda _: nodes)).invoke({"question": QUESTION})


def test_tuples_and_iterators_of_documents_are_accepted():
    for make in (tuple, iter):
        out = once(RunnableLambda(lambda _, make=make: make(DOCUMENTS[:1]))).invoke({"question": QUESTION})
        assert [s["id"] for s in out["sources"]] == ["bridge"]


def test_failed_searches_are_reported_to_the_agent():
    tool = create_dynamic_rag_tool(once(WatchedRetriever(give=OSError("disk full"))))
    told = tool.invoke({"args": {"question": QUESTION}, "id": "1", "name": tool.name, "type": "tool_call"})
    assert "Warning: 1 of 1 searches failed" in told.content
    assert told.artifact["warnings"]
