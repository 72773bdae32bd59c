"""A model with fallbacks: the next model continues where one fails, and only common signals are available."""

import pytest

from langgraph_dynrag import Budgets, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.triggers import EverySentence
from rag_backbone.errors import ConfigurationError, ServerError, SignalUnavailableError
from tests.langgraph_dynrag.generators.served import QUESTION, QUICK, TEXT, chat
from tests.langgraph_dynrag.generators.wrapped import ask, graph
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever
from tests.openai_server import Fault, serving


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_fallback_continues_where_the_first_model_fails(asynchronous, caplog):
    with serving(TEXT) as first, serving(TEXT) as second:
        built = graph(chat(first).with_fallbacks([chat(second)]), trigger=EverySentence())
        first.fails = lambda number: Fault(400, message="quota is used up") if number > 4 else None
        result = await ask(built, asynchronous)
        assert result["answer"] == TEXT
        assert first.asked()
        assert second.asked()
        failures = [f for e in result["trace"] if e["type"] == "draft" for f in e.get("failures", ())]
        assert "ServerError" in failures
        assert "quota is used up" in caplog.text
        assert "falling back to" in caplog.text


def test_a_graph_is_built_while_the_first_model_is_down():
    with serving(TEXT) as first, serving(TEXT) as second:
        first.stop()
        built = graph(chat(first).with_fallbacks([chat(second)]), server=ServerPolicy(attempts=1))
        assert built.invoke(QUESTION)["answer"] == TEXT


def test_exceptions_that_are_not_handled_are_raised():
    import openai

    with serving(TEXT) as first, serving(TEXT) as second:
        limited = chat(first).with_fallbacks([chat(second)], exceptions_to_handle=(openai.RateLimitError,))
        built = graph(limited, server=ServerPolicy(attempts=1))
        first.fails = lambda number: Fault(400, message="too long")
        with pytest.raises(ServerError, match="too long"):
            built.invoke(QUESTION)
        first.fails = lambda number: Fault(429)
        assert built.invoke(QUESTION)["answer"] == TEXT


def test_the_first_error_is_raised_if_all_models_fail():
    with serving(TEXT) as first, serving(TEXT) as second:
        built = graph(chat(first).with_fallbacks([chat(second)]), server=ServerPolicy(attempts=1))
        first.fails = lambda number: Fault(400, message="the first")
        second.fails = lambda number: Fault(400, message="the second")
        with pytest.raises(ServerError, match="the first"):
            built.invoke(QUESTION)


def test_a_local_model_can_be_the_fallback_of_a_server(local):
    with serving(TEXT) as server:
        built = graph(chat(server).with_fallbacks([local]), budgets=Budgets(tokens=24), server=QUICK)
        server.stop()
        result = built.invoke(QUESTION)
        assert [e for e in result["trace"] if e["type"] == "draft"]


def test_available_signals_are_those_common_to_all_models(local):
    quiet = ScriptedChatModel(replies=[], reports=False)
    with pytest.raises(SignalUnavailableError, match="reports no log-probabilities"):
        graph(ScriptedChatModel(replies=[]).with_fallbacks([quiet]))
    assert graph(ScriptedChatModel(replies=[]).with_fallbacks([quiet]), preset="no_retrieval")
    with pytest.raises(SignalUnavailableError, match="with fallbacks that may be another model"):
        create_dynamic_rag(local.with_fallbacks([local]), WatchedRetriever(), preset="dragin")


def test_a_server_policy_is_refused_without_a_server(local):
    with pytest.raises(ConfigurationError, match="none of the models in .* is from langchain-openai"):
        graph(local.with_fallbacks([local]), server=ServerPolicy())
