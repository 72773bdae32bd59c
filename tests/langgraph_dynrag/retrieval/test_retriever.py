"""Anything that is called as a retriever: what is accepted, how it is called, and what it must return."""

import contextvars
import threading

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langgraph_dynrag.retrieval.retriever import (
    acall_retriever,
    call_retriever,
    check_retriever,
    explained,
    in_daemon_thread,
)
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever


class WithoutK(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS[:2]


class OnlyAsynchronous(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        raise NotImplementedError("use ainvoke")

    async def _aget_relevant_documents(self, query, *, run_manager):
        return DOCUMENTS[:1]


async def first(query):
    return DOCUMENTS[:1]


@pytest.mark.parametrize(
    "retriever",
    [
        WithoutK(),
        WatchedRetriever().with_retry(),
        RunnableLambda(first),
        WithoutK() | RunnableLambda(lambda found: found),
    ],
)
def test_retrievers_and_other_runnables_are_accepted(retriever):
    check_retriever(retriever)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (WithoutK, r"is the class WithoutK;.* Pass an instance: WithoutK\(...\)"),
        (DOCUMENTS, r"is a list;.*BM25Retriever.from_documents\(documents\)"),
        (first, r"is a function;.*RunnableLambda\(function\)"),
        (InMemoryVectorStore(DeterministicFakeEmbedding(size=2)), r"is a InMemoryVectorStore;.*store.as_retriever\(\)"),
        (ScriptedChatModel(replies=[]), "is a ScriptedChatModel; a LangChain BaseRetriever is needed"),
        (None, r"is a NoneType;.*LocalIndex\(folder\).as_retriever\(\)"),
    ],
)
def test_anything_else_is_refused_with_the_line_to_write(value, message):
    with pytest.raises(ConfigurationError, match=f"^mine {message}"):
        check_retriever(value, "mine")


async def test_k_is_passed_to_retrievers_that_accept_it():
    taking = WatchedRetriever()
    assert len(call_retriever(taking, "bridge Wray", {}, k=1)) == 1
    assert len(await acall_retriever(taking, "bridge Wray", {}, k=1)) == 1
    assert call_retriever(WithoutK(), "bridge", {}, k=1) == await acall_retriever(WithoutK(), "bridge", {}, k=1)


@pytest.mark.parametrize("retriever", [OnlyAsynchronous(), RunnableLambda(first)])
async def test_an_asynchronous_retriever_can_be_called_from_synchronous_code(retriever):
    assert call_retriever(retriever, "bridge", {}) == DOCUMENTS[:1]  # inside a running event loop
    outside = in_daemon_thread(call_retriever, retriever, "bridge", {})
    assert outside.result(30) == DOCUMENTS[:1]
    assert await acall_retriever(retriever, "bridge", {}) == DOCUMENTS[:1]


async def test_a_retriever_that_implements_neither_call_raises_its_own_error():
    class Unfinished(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            raise NotImplementedError("not yet")

    with pytest.raises(NotImplementedError, match="not yet"):
        call_retriever(Unfinished(), "bridge", {})
    with pytest.raises(NotImplementedError, match="not yet"):
        await acall_retriever(Unfinished(), "bridge", {})


@pytest.mark.parametrize("returned", [None, "text", {"a": 1}, 7, ["text"], [(Document("a"), 0.5)]])
async def test_anything_but_documents_is_refused(returned):
    retriever = RunnableLambda(lambda _: returned)
    with pytest.raises(ConfigurationError, match="a list of LangChain Documents is needed"):
        call_retriever(retriever, "bridge", {})
    with pytest.raises(ConfigurationError, match="a list of LangChain Documents is needed"):
        await acall_retriever(retriever, "bridge", {})


def test_a_daemon_thread_has_the_context_of_its_caller_and_returns_errors():
    variable = contextvars.ContextVar("variable", default="unset")
    token = variable.set("set")
    try:
        future = in_daemon_thread(lambda: (variable.get(), threading.current_thread().daemon))
        assert future.result(30) == ("set", True)
    finally:
        variable.reset(token)
    with pytest.raises(ZeroDivisionError):
        in_daemon_thread(lambda: 1 / 0).result(30)


def test_a_programming_error_is_noted_with_its_query():
    error = explained(NameError("indx"), "Who?")
    assert error.__notes__ == [
        "raised by the retriever in the search for 'Who?'; errors of this kind always end the run"
    ]
