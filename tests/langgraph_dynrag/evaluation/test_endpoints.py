"""Evaluations of a model behind a server, over real connections."""

from langgraph_dynrag import AnswerPrompt, evaluate
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
