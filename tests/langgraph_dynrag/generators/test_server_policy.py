"""The policy of requests to a server: its values are checked, and its pauses follow the server and the deadline."""

import time

import pytest

from langgraph_dynrag import Budgets, Capabilities, ServerPolicy, create_dynamic_rag
from rag_backbone.errors import ConfigurationError, ServerUnavailableError
from tests.langgraph_dynrag.generators.served import QUESTION, TEXT, ask, drafts, graph
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever
from tests.openai_server import Fault, serving


def test_a_policy_needs_a_server():
    with pytest.raises(ConfigurationError, match="is not a langchain-openai model"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="single", server=ServerPolicy())
    for wrong in ({"attempts": 0}, {"pause": 0}, {"continuing": "somehow"}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            ServerPolicy(**wrong)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_rate_limit_pauses_follow_retry_after(asynchronous):
    with serving(TEXT) as server:
        built = graph(server)
        server.faults = [Fault(429, {"Retry-After": "0.7"})]
        started = time.monotonic()
        assert (await ask(built, asynchronous))["answer"] == TEXT
        assert time.monotonic() - started >= 0.7


def test_a_retry_after_longer_than_the_policy_allows_raises_at_once():
    with serving(TEXT) as server:
        built = graph(server)
        server.faults = [Fault(429, {"Retry-After": "300"})] * 9
        started = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="wait 300 s"):
            built.invoke(QUESTION)
        assert time.monotonic() - started < 5


def test_no_pause_exceeds_the_remaining_time():
    with serving(TEXT) as server:
        built = graph(server, policy=ServerPolicy(first_wait=50.0), budgets=Budgets(seconds=2.0))
        server.faults = [Fault(after=5)]
        started = time.monotonic()
        result = built.invoke(QUESTION)
        assert 2 <= time.monotonic() - started < 30
        assert drafts(result)[0]["ended"] == "deadline"
        assert any(e["type"] == "budget" and e["which"] == "seconds" for e in result["trace"])
        assert result["answer"].startswith("The bridge was built by")


def test_stated_capabilities_are_validated():
    with pytest.raises(ConfigurationError, match="alternatives is -1"):
        Capabilities(alternatives=-1)
    with pytest.raises(ConfigurationError, match="logprobs is 'yes'"):
        Capabilities(logprobs="yes")
    with pytest.raises(ConfigurationError, match="continuing"):
        Capabilities(continuing="auto")
    with pytest.raises(ConfigurationError, match=r"logprob.*[Dd]id you mean.*logprobs"):
        Capabilities(logprob=True)
    with pytest.raises(ConfigurationError, match="'flags', but capabilities say 'ask_again'; give one"):
        ServerPolicy(continuing="flags", capabilities=Capabilities())
    with pytest.raises(ConfigurationError, match="capabilities"):
        ServerPolicy(capabilities={"logprobs": True})
