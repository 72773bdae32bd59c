"""Models behave as behind real endpoints: they reason, start over, omit usage and fail; and every run ends."""

import itertools
import re

import pytest

from langgraph_dynrag import Budgets, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.generators.endpoint import Endpoint
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.trace.trace import Trace
from rag_backbone.errors import DynPragError, NoAnswerError
from tests.langgraph_dynrag.generators.served import QUESTION, TEXT, chat
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server import Fault, OpenAIServer, beginning_again, knowing

QUICK = ServerPolicy(first_wait=0.001, longest_wait=0.5, pause=0.05, failures=50)
THOUGHTS = "Who built it? Joan Pike, or someone else.\n\nNo: it must be Aldous Wray."
PRESETS = ("no_retrieval", "single", "fixed_sentence", "flare")
FAILURES = (
    Fault(500),
    Fault(429, headers={"Retry-After": "0.01"}),
    Fault(after=1),
    Fault(body="<html>"),
    Fault(body='{"choices": []}'),
    Fault(after=2, then="garbage"),
    Fault(after=0, then="stop"),
)
BEHAVIOURS = {
    "plain": {},
    "tags": {"thinks": THOUGHTS},
    "closing mark alone": {"thinks": THOUGHTS, "thinks_in": "closing"},
    "a field of its own": {"thinks": THOUGHTS, "thinks_in": "field"},
    "no usage": {"usage": False},
    "every third request fails": {"fails": lambda n: FAILURES[n // 3 % len(FAILURES)] if n % 3 == 0 else None},
}


def serve(again=False, **options):
    made = []
    says = beginning_again(TEXT) if again else knowing(TEXT, lambda: made[0])
    server = OpenAIServer(says, **{"continues": "never", **options})
    made.append(server)
    return server


def answered(server, preset, **options):
    model = chat(server)
    graph = create_dynamic_rag(
        model,
        None if preset == "no_retrieval" else WatchedRetriever(),
        preset=preset,
        prompt=AnswerPrompt(),
        server=QUICK,
        **{"lookahead": 64, **options},
    )
    assert Endpoint(model, QUICK).way  # probed now, so that a run's requests and failures are only its own
    server.requests.clear()
    return graph.invoke(QUESTION)


@pytest.mark.parametrize("again", [False, True], ids=["continues", "begins again"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_run_answers_within_few_requests(preset, behaviour, again):
    with serve(again, **BEHAVIOURS[behaviour]) as server:
        result = answered(server, preset)
        assert result["short_answer"] == "Hallin"
        for sentence in re.split(r"(?<=\.)\s+", TEXT):
            assert result["answer"].count(sentence.rstrip(".")) == 1, result["answer"]
        assert "Joan" not in result["answer"]
        assert not any("Joan" in query for e in result["trace"] if e["type"] == "query" for query in e["queries"])
        failures = sum(len(e.get("failures", ())) for e in result["trace"])
        assert len(server.asked()) <= 6 + failures
        kinds = {e["type"] for e in result["trace"]}
        if "thinks" in BEHAVIOURS[behaviour]:
            assert "reasoning" in kinds
            assert Trace.from_state(result).counts["reasoning_tokens"] > 5
        if again and preset in ("fixed_sentence", "flare") and "fails" not in BEHAVIOURS[behaviour]:
            assert "repetition" in kinds
        if behaviour.startswith("every third") and len(server.asked()) > 2:
            assert failures
            assert f"asked {1 + 1} times" in str(Trace.from_state(result))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("thinks_in", ["unclosed", "field"])
def test_a_model_that_only_reasons_raises_within_its_budgets(preset, thinks_in):
    with serve(thinks="Hm. " * 400, thinks_in=thinks_in) as server:
        with pytest.raises(NoAnswerError, match="tokens of reasoning"):
            answered(server, preset, budgets=Budgets(tokens=32, reasoning_tokens=100))
        assert len(server.asked()) <= 4
        assert sum(body.get("max_completion_tokens") or body["max_tokens"] for body in server.asked()) <= 400


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_that_repeats_one_sentence_forever_terminates(preset):
    with OpenAIServer(beginning_again("The bridge was built by Aldous Wray."), continues="never") as server:
        result = answered(server, preset)
        assert result["answer"] == "The bridge was built by Aldous Wray."
        assert len(server.asked()) <= 6
        told = [e for e in result["trace"] if e["type"] == "no_text"]
        assert told
        assert "brought no new text" in str(Trace.from_state(result))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fault", FAILURES)
def test_a_server_that_always_fails_raises_within_its_attempts(preset, fault):
    with serve() as server:
        graph = create_dynamic_rag(
            chat(server), None if preset == "no_retrieval" else WatchedRetriever(), preset=preset, server=QUICK
        )
        server.requests.clear()
        server.fails = lambda number: fault
        with pytest.raises(DynPragError, match="127.0.0.1"):
            graph.invoke(QUESTION)
        assert len(server.asked()) <= QUICK.attempts


def test_each_failure_is_reported_in_the_trace():
    kinds = itertools.cycle([Fault(500), Fault(429, headers={"Retry-After": "0.01"}), None])
    with serve() as server:
        graph = create_dynamic_rag(chat(server), WatchedRetriever(), preset="flare", server=QUICK)
        server.fails = lambda number: next(kinds)
        result = graph.invoke(QUESTION)
    assert next(e["failures"] for e in result["trace"] if e["type"] == "draft") == ["HTTP 500", "HTTP 429"]
    assert "asked 3 times: HTTP 500, HTTP 429" in str(Trace.from_state(result))
