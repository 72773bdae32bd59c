"""Generation in a server: options, broken streams that resume at the exact token, and text that was held back."""

import pytest

from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.engine.stop_strings import Detokenizer
from rag_backbone.errors import ServerUnavailableError
from tests.llamaindex_prag.serving.conftest import both, ids
from tests.openai_server import Fault


def test_options_reach_the_server(served, server, lm):
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, seed=3, logit_bias={7: -1.0})
    request = Request(ids(lm), 4, stop=["\n"], sampling=sampling, signals=Signals(top_logprobs=1))
    steps = served.lm.engine.generate(request).steps
    (body,) = server.asked("/completions")
    told = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 3, "logit_bias": {"7": -1.0}, "stop": ["\n"]}
    assert {name: body[name] for name in told} == told
    assert all(step.top_logprobs == ((step.token_id, pytest.approx(step.logprob)),) for step in steps)


@pytest.mark.parametrize("then", ["reset", "stop", "garbage", "error"])
def test_a_broken_answer_resumes_at_the_exact_token(served, server, lm, then):
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request)
    server.faults = [Fault(after=3, then=then)]
    assert served.lm.engine.generate(request).token_ids == whole.token_ids
    second = server.asked("/completions")[1]
    assert second["prompt"] == ids(lm) + whole.token_ids[:3]
    assert second["max_tokens"] == 12 - 3


@pytest.fixture
def knowing(server, lm, monkeypatch):
    """Make the server hold text back, generate one fixed text, and miss stop strings that start in a prompt."""
    monkeypatch.setattr("llamaindex_prag.serving.served_engine.pause_before", lambda *_, **__: 0.0)
    server.holds = True
    known = list(lm.tokenizer("The bridge of Hallin was built by Ada.", add_special_tokens=False).input_ids)
    detokenizer = Detokenizer(lm.tokenizer, ids(lm))
    texts = [detokenizer.push(token) for token in known]

    def says(body):
        done = len(body["prompt"]) - len(ids(lm))
        assert body["prompt"][len(ids(lm)) :] == known[:done]
        return [(text, 0.9, token) for text, token in zip(texts[done:], known[done:], strict=True)]

    server.says = says
    return texts


@pytest.mark.parametrize("stop", ["\n\nQuestion", "END", "!"])
@pytest.mark.parametrize("after", [1, 3, 6, -1])
def test_text_held_back_when_a_stream_broke_is_recovered(served, server, lm, knowing, after, stop):
    server.faults = [Fault(after=after % len(knowing)), Fault(after=0), Fault(after=1)]
    with served.lm.engine.stream(Request(ids(lm), 99, stop=[stop])) as stream:
        streamed = "".join(step.text for step in stream)
        found = stream.generation()
    assert streamed == found.text == "".join(knowing)
    assert [step.index for step in found.steps] == list(range(len(knowing)))


@pytest.mark.parametrize("at", [2, 4, 7])
def test_a_stop_string_that_spans_a_break_is_found(served, server, lm, knowing, at):
    begins = len("".join(knowing[:at])) - 1
    stop = "".join(knowing)[begins : begins + 4]
    server.faults = [Fault(after=at)]
    found = served.lm.engine.generate(Request(ids(lm), 99, stop=[stop]))
    assert (found.text, found.finish_reason, found.stop_string) == ("".join(knowing)[:begins], "stop", stop)


def test_without_a_tokenizer_tokens_without_text_are_generated_again(server, lm, store, tmp_path, knowing):
    alone = ServedModel(server.url, store, recipe="prag", folder=tmp_path / "out")
    server.faults = [Fault(after=5)]
    found = alone.lm.engine.generate(Request(ids(lm), 99, stop=["x" * 500]))  # long enough to hold everything back
    assert found.text == "".join(knowing)


def test_a_restarted_server_loads_the_adapters_again(served, server, lm):
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request)
    stream = served.lm.engine.stream(request)
    first = next(stream)
    assert first.token_id == whole.token_ids[0]
    stream.close()
    server.stop()
    server.adapters.clear()
    served.lm.engine.attempts = 1
    with pytest.raises(ServerUnavailableError, match=server.url):
        served.lm.engine.generate(request)
    server.start()
    assert served.lm.engine.generate(request).token_ids == whole.token_ids


def test_a_pause_longer_than_the_limit_raises_at_once(served, server, lm):
    served.server.client.max_retries = 0
    server.faults = [Fault(429, {"Retry-After": "500"})]
    with pytest.raises(ServerUnavailableError, match="wait 500 s"):
        served.lm.engine.generate(Request(ids(lm), 4))
