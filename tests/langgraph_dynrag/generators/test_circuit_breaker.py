"""The circuit breaker: when it opens, admits a trial, and closes."""

import pytest

from langgraph_dynrag.generators.circuit_breaker import CircuitBreaker
from rag_backbone.errors import ConfigurationError, ServerUnavailableError


def test_a_breaker_opens_admits_one_trial_and_closes():
    now = [0.0]
    breaker = CircuitBreaker("the server", failures=2, pause=10.0, clock=lambda: now[0])
    breaker.failed(OSError("gone"), breaker.check())
    breaker.failed(OSError("still gone"), breaker.check())
    with pytest.raises(ServerUnavailableError, match=r"failed 2 times in a row.*still gone.*allowed in 10 s"):
        breaker.check()
    now[0] = 10.5
    trial = breaker.check()
    with pytest.raises(ServerUnavailableError):
        breaker.check()
    breaker.failed(OSError("again"), trial)
    now[0] = 20.0
    with pytest.raises(ServerUnavailableError, match="3 times"):
        breaker.check()
    now[0] = 21.0
    breaker.check()
    breaker.succeeded()
    breaker.check()
    breaker.check()


def test_concurrent_failures_count_as_one():
    breaker = CircuitBreaker("the server", failures=2)
    together = [breaker.check() for _ in range(5)]
    for began in together:
        breaker.failed(OSError("gone"), began)
    again = breaker.check()
    breaker.failed(OSError("still gone"), again)
    with pytest.raises(ServerUnavailableError, match="failed 2 times in a row"):
        breaker.check()


def test_a_success_forgets_the_failures_before_it():
    breaker = CircuitBreaker("the server", failures=2)
    for _ in range(5):
        breaker.failed(OSError("gone"), breaker.check())
        breaker.succeeded()
    assert repr(breaker) == "CircuitBreaker('the server', 0 of 2 failures)"
    breaker.check()


@pytest.mark.parametrize("options", [{"failures": 0}, {"pause": 0}, {"pause": -1.0}, {"pause": float("nan")}])
def test_failures_and_pause_must_be_positive(options):
    with pytest.raises(ConfigurationError, match="both must be above 0"):
        CircuitBreaker("the server", **options)
