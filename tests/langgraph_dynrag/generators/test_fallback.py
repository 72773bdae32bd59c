"""A model with fallbacks: the next model continues where one fails, and only common signals are available."""

import pytest
from langchain_core.messages import HumanMessage

from langgraph_dynrag import Budgets, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.generators.chat import ChatGenerator
from langgraph_dynrag.generators.fallback import FallbackGenerator
from langgraph_dynrag.generators.local import LocalGenerator
from langgraph_dynrag.triggers import EverySentence
from rag_backbone.errors import ConfigurationError, ServerError, SignalUnavailableError
from tests.langgraph_dynrag.generators.served import QUESTION, QUICK, TEXT, chat
from tests.langgraph_dynrag.generators.tasks import task_of
from tests.langgraph_dynrag.generators.wrapped import ask, graph
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said
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


def both(*replies, exceptions=(ConnectionError,)):
    """Return a generator of two scripted models, of which the first one fails if it has no replies."""
    models = [Silent(replies=list(r)) for r in replies]
    return FallbackGenerator([ChatGenerator(m, frozenset({"logprob"})) for m in models], exceptions), models


class Silent(ScriptedChatModel):
    """Fails once its replies are used up."""

    def _next(self, messages, kwargs):
        if len(self.calls) == len(self.replies):
            raise ConnectionError("gone")
        return super()._next(messages, kwargs)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_instructions_and_drafts_are_answered_by_the_next_model(asynchronous, caplog):
    generator, (_, second) = both([], [said("One."), said("Two."), said("It was Joan.")])
    task = task_of(opens=True, accepted_ids=(1, 2))
    if asynchronous:
        told = await generator.aask(["1?"], {}), (await generator.areply("2?", {}, max_tokens=9)).text
        result = await generator.adraft(task, {}, None)
    else:
        told = generator.ask(["1?"], {}), generator.reply("2?", {}, max_tokens=9).text
        result = generator.draft(task, {}, None)
    assert told == (["One."], "Two.")
    assert (result.draft.text, result.failures) == ("It was Joan.", ("ConnectionError",))
    assert len(second.calls) == 3
    assert caplog.text.count("falling back to ChatGenerator(Silent)") == 3


async def test_the_first_error_is_raised_and_other_errors_at_once():
    generator, _ = both([], [])
    with pytest.raises(ConnectionError, match="gone"):
        generator.ask(["?"], {})
    generator, (_, second) = both([], [said("One.")], exceptions=(TimeoutError,))
    with pytest.raises(ConnectionError, match="gone"):
        await generator.aask(["?"], {})
    assert second.calls == []


def test_counts_are_the_highest_and_the_window_the_smallest_of_all_models(local):
    small = ScriptedChatModel(replies=[], profile={"max_input_tokens": 100})
    parts = [LocalGenerator(local), ChatGenerator(small, frozenset({"logprob", "entropy"}))]
    generator = FallbackGenerator(parts, ())
    text, messages = "Who built it?", [HumanMessage("Who built it?")]
    assert generator.count_tokens(text) == max(p.count_tokens(text) for p in parts)
    assert generator.prompt_tokens(messages) == max(p.prompt_tokens(messages) for p in parts)
    assert generator.context_window == 100
    assert generator.signals == {"logprob", "entropy"}
    assert generator.token_ids(text) is generator.opens_reasoning is generator.context(task_of()) is None
    with pytest.raises(SignalUnavailableError, match=r"FallbackGenerator\(LocalGenerator.*cannot give attention"):
        generator.attend_alone(text, None)
