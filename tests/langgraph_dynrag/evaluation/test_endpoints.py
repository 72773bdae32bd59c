"""Evaluations of a model behind a server, over real connections."""

import pytest

from langgraph_dynrag import AnswerPrompt, ServerPolicy, evaluate
from rag_backbone.errors import ServerError
from tests.langgraph_dynrag.generators.served import QUICK, TEXT, chat
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server.models import serving
from tests.openai_server.replies import Fault

ASKED = [{"question": f"Where was the builder of bridge {i} born?", "answers": ["Hallin"]} for i in range(4)]


def test_rate_limits_are_waited_for_and_what_the_server_cannot_do_is_said():
    with serving(TEXT, Hallin=0.3) as server:
        model = chat(server)
        options = {"presets": ["flare@0.5", "dragin"], "server": QUICK, "prompt": AnswerPrompt(), "concurrency": 2}
        plain = evaluate(model, WatchedRetriever(), ASKED, **options)
        server.fails = lambda number: Fault(429, {"Retry-After": "0.01"}) if number % 3 == 0 else None
        limited = evaluate(model, WatchedRetriever(), ASKED, **options)
    assert "attention" in limited.row("dragin").problem
    for found in (plain, limited):
        assert [r.failures for r in found.rows] == [0] * 5
        assert found.row("flare@0.5").em.value == 1.0
        assert found.row("flare@0.5").searches.value > 0
        assert found.row("single").read_tokens.value > found.row("no_retrieval").read_tokens.value > 0
    assert limited.model == "base"


def test_a_limit_that_is_not_lifted_ends_the_run_and_the_next_one_asks_what_is_missing(tmp_path):
    asked = [{"question": f"Where was the builder of bridge {i} born?", "answers": ["Hallin"]} for i in range(6)]
    records = tmp_path / "r.jsonl"
    policy = ServerPolicy(first_wait=0.01, longest_wait=0.05, failures=1000)
    options = {"presets": [], "server": policy, "prompt": AnswerPrompt(), "concurrency": 1, "records": records}
    with serving(TEXT) as server:
        model = chat(server)
        assert evaluate(model, WatchedRetriever(), asked[:1], **options).complete
        kept = records.read_text().splitlines()
        assert len(kept) == 3
        server.fails = lambda _: Fault(429)
        with pytest.raises(ServerError, match="429"):
            evaluate(model, WatchedRetriever(), asked, **options)
        assert records.read_text().splitlines() == kept
        server.fails = lambda _: None
        server.requests.clear()
        found = evaluate(model, WatchedRetriever(), asked, **options)
        sent = [str(request) for request in server.requests]
    assert [(r.questions, r.failures) for r in found.rows] == [(6, 0)] * 3
    assert records.read_text().splitlines()[:3] == kept
    assert len(records.read_text().splitlines()) == 3 * 6
    assert not any("bridge 0" in request for request in sent)
