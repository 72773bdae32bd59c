"""The policy of requests to a server: its values are checked, and its pauses follow the server and the deadline."""

import time
from types import SimpleNamespace

import pytest
from tenacity import Retrying

from langgraph_dynrag import Budgets, Capabilities, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.generators.server_policy import passing
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError
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


def waits(policy, error, **options):
    """Return the pauses before the attempts of a call that always fails."""
    seen = []

    def failing():
        raise error

    with pytest.raises(type(error)):
        Retrying(**policy.rules(**options), sleep=seen.append)(failing)
    return seen


class Refused(Exception):
    """A response with an HTTP status and headers."""

    def __init__(self, status, **headers):
        super().__init__(f"HTTP {status}")
        self.status_code = status
        self.response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_pauses_double_with_jitter_up_to_the_longest():
    policy = ServerPolicy(attempts=5, first_wait=1.0, longest_wait=4.5)
    first, second, third, fourth = waits(policy, OSError("gone"))
    assert 1 <= first <= 2
    assert 2 <= second <= 3
    assert 4 <= third <= 4.5
    assert fourth == 4.5


def test_a_pause_that_the_server_asks_for_replaces_the_policys():
    policy = ServerPolicy(attempts=3, first_wait=0.1, longest_wait=10.0)
    assert waits(policy, Refused(429, retry_after="7")) == [7, 7]
    assert waits(policy, Refused(429, retry_after="11")) == []  # longer than the policy allows


def test_only_transient_errors_are_retried_unless_told_otherwise():
    policy = ServerPolicy(attempts=2, first_wait=0.01)
    assert [passing(e) for e in (OSError(), Refused(503), Refused(400), ValueError(), ServerError(""))] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert waits(policy, Refused(400)) == []
    assert len(waits(policy, ValueError("mine"), may_pass=lambda _: True)) == 1


def test_nothing_is_retried_after_the_deadline():
    policy = ServerPolicy(attempts=9, first_wait=30.0)
    assert waits(policy, OSError("gone"), deadline=time.monotonic() - 1) == []
    before_deadline = waits(policy, OSError("gone"), deadline=time.monotonic() + 5)
    assert all(pause <= 5 for pause in before_deadline)
    assert len(before_deadline) == 8
