"""Failed requests to a server: which may succeed later, how long to wait, and what the caller is told."""

import email.utils
import json
import time

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError
from rag_backbone.openai_errors import (
    BrokenStreamError,
    Failure,
    GarbledStreamError,
    failure_of,
    garbled,
    pause_before,
    retry_after,
)

REQUEST = httpx.Request("POST", "http://localhost/v1/completions")


def refused(status, **headers):
    response = httpx.Response(status, headers=headers, request=REQUEST)
    return openai.APIStatusError("no", response=response, body=None)


@pytest.mark.parametrize(
    ("status", "passing"),
    [*[(s, True) for s in (408, 409, 425, 429, 500, 503, 599)], *[(s, False) for s in (400, 401, 403, 404, 413, 422)]],
)
def test_the_status_decides_whether_a_retry_can_help(status, passing):
    failure = failure_of(refused(status))
    assert (failure.status, failure.passing, failure.brief) == (status, passing, f"HTTP {status}")
    assert failure.unknown_model is (status == 404)


def test_the_status_of_an_httpx_error_is_that_of_its_response():
    for status, passing in ((401, False), (429, True)):
        response = httpx.Response(status, headers={"retry-after": "7"}, request=REQUEST)
        error = httpx.HTTPStatusError("no", request=REQUEST, response=response)
        assert failure_of(error) == Failure(error, status, passing, retry_after=7.0)


@pytest.mark.parametrize(
    "error",
    [
        openai.APIConnectionError(request=REQUEST),
        openai.APITimeoutError(request=REQUEST),
        openai.APIError("an error event", REQUEST, body=None),
        httpx.ReadError("reset"),
        ConnectionResetError("reset"),
        BrokenStreamError("half"),
        GarbledStreamError("garbage"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_without_a_status_may_pass(error):
    assert failure_of(error) == Failure(error, None, passing=True)
    assert failure_of(error).brief == type(error).__name__
    assert failure_of(error).unknown_model is False


@pytest.mark.parametrize("error", [ValueError("mine"), ConfigurationError("mine"), KeyError("mine"), ServerError("x")])
def test_an_error_of_ours_is_not_the_servers(error):
    assert failure_of(error) is None


def test_an_error_in_parsing_a_response_is_the_servers():
    for error in (json.JSONDecodeError("no", "<html>", 0), KeyError("choices"), TypeError("None")):
        meant = garbled(error)
        assert isinstance(meant, GarbledStreamError)
        assert f"violates the protocol ({type(error).__name__}: " in str(meant)
    for error in (ConfigurationError("mine"), ConnectionError("gone"), refused(400), ZeroDivisionError()):
        assert garbled(error) is error


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), (" 0.5 ", 0.5), ("-3", 0.0), ("", None), ("soon", None), (None, None), (2, 2.0)]
)
def test_a_response_asks_for_seconds(value, seconds):
    assert retry_after({"retry-after": value}) == seconds
    assert retry_after({"Retry-After": value}) == seconds
    assert retry_after({}) is None


def test_a_response_asks_to_wait_until_a_date():
    now = time.time()
    in_a_minute = email.utils.formatdate(now + 60, usegmt=True)
    assert 0 < retry_after({"retry-after": in_a_minute}) <= 60
    assert retry_after({"retry-after": email.utils.formatdate(now - 60, usegmt=True)}) == 0.0


def test_the_wait_that_a_response_asks_for_belongs_to_its_failure():
    assert failure_of(refused(429, **{"Retry-After": "7"})).retry_after == 7.0
    without_response = ValueError()
    without_response.status_code = 503
    assert failure_of(without_response) == Failure(without_response, 503, passing=True)


def test_pauses_double_from_the_second_attempt_on():
    failure = Failure(OSError(), None, passing=True)
    assert [pause_before(n, failure) for n in (2, 3, 4)] == [0.5, 1.0, 2.0]
    assert pause_before(9, failure, longest=60.0) is None


@given(st.integers(2, 9), st.floats(0, 100), st.floats(0, 100))
def test_a_pause_that_the_server_asks_for_counts_unless_it_is_too_long(attempt, asked, longest):
    failure = Failure(OSError(), 429, passing=True, retry_after=asked)
    assert pause_before(attempt, failure, longest=longest) == (asked if asked <= longest else None)


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (
            Failure(ValueError("slow down"), 429, passing=True, retry_after=2.5),
            ServerUnavailableError,
            "the server does not accept more requests for now (HTTP 429); it asks to wait 2.5 s. ValueError: slow down",
        ),
        (
            Failure(ValueError("slow down"), 429, passing=True),
            ServerUnavailableError,
            "the server does not accept more requests for now (HTTP 429). ValueError: slow down",
        ),
        (Failure(BrokenStreamError("half"), None, passing=True), BrokenStreamError, "the server: half"),
        (
            Failure(OSError("gone"), None, passing=True),
            ServerUnavailableError,
            "the server could not answer: OSError: gone",
        ),
        (
            Failure(ValueError("no"), 400, passing=False),
            ServerError,
            "the server refused the request (HTTP 400): ValueError: no",
        ),
    ],
)
def test_the_caller_is_told_what_the_server_did(failure, kind, text):
    error = failure.explained("the server")
    assert type(error) is kind
    assert str(error) == text
