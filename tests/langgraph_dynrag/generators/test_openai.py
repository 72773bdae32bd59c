"""A model behind an OpenAI-compatible endpoint is continued, retried, and refused if it cannot work."""

import asyncio
import time

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import ServerPolicy
from langgraph_dynrag.generators.endpoint import Endpoint
from langgraph_dynrag.generators.openai import OpenAIGenerator
from langgraph_dynrag.triggers import Entropy, EveryNTokens, EverySentence
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError, SignalUnavailableError
from tests.langgraph_dynrag.generators.served import QUESTION, QUICK, TEXT, ask, chat, drafts, graph, since_build
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server import Fault, serving

# ------------------------------------------------------------------------------------------------------- continuing


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("continues", "way"),
    [("flags", "flags"), ("always", "last_message"), ("never", "ask_again"), ("strict", "ask_again")],
)
async def test_an_answer_in_progress_is_continued_as_the_server_supports(continues, way, asynchronous):
    with serving(TEXT, continues=continues) as server:
        built = graph(server)
        since_build(server)
        result = await ask(built, asynchronous)
        assert result["answer"] == TEXT
        first, second, *_ = server.asked()
        assert first["messages"][-1]["role"] == "user"
        begun = "The bridge was built by Aldous Wray."
        if way == "ask_again":
            assert second["messages"][-1]["role"] == "user"
            assert second["messages"][-1]["content"].endswith(f"without repeating any of it:\n{begun} He was")
        else:
            assert second["messages"][-1] == {"role": "assistant", "content": f"{begun} He was"}
        assert ("continue_final_message" in second) == (way == "flags")


def test_a_configured_continuation_mode_sends_no_requests():
    with serving(TEXT, continues="never") as server:
        assert Endpoint(chat(server), ServerPolicy(continuing="last_message")).way == "last_message"
        assert server.requests == []


def test_the_context_window_comes_from_the_server():
    with serving(TEXT, window=300) as server:
        assert Endpoint(chat(server), QUICK).context_window == 300


def test_extra_body_fields_of_the_user_are_sent():
    with serving(TEXT) as server:
        built = graph(server, model=chat(server, extra_body={"top_k": 1}))
        since_build(server)
        built.invoke(QUESTION)
        assert all(body["top_k"] == 1 for body in server.asked())
        assert any("continue_final_message" in body for body in server.asked())


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_reply_to_an_instruction_is_retried_and_reports_its_cost(asynchronous):
    with serving(TEXT) as server:
        generator = OpenAIGenerator.of(chat(server), frozenset(), QUICK)
        since_build(server)
        server.faults = [Fault(503, path="/chat/completions")]
        if asynchronous:
            reply = await generator.areply("Go on.", {}, max_tokens=5)
        else:
            reply = generator.reply("Go on.", {}, max_tokens=5)
        assert TEXT.startswith(reply.text)
        assert reply.cost["generated_tokens"] == 5
        assert reply.cost["prompt_tokens"] > 0
        assert [body.get("max_completion_tokens", body.get("max_tokens")) for body in server.asked()] == [5, 5]


# --------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_uncertain_word_triggers_retrieval(asynchronous):
    with serving(TEXT, Hallin=0.3) as server:
        retriever = WatchedRetriever()
        result = await ask(graph(server, retriever=retriever), asynchronous)
        assert retriever.queries
        assert result["answer"] == TEXT


def test_entropy_is_the_lower_bound_of_twenty_alternatives():
    with serving(TEXT, Hallin=0.1) as server:
        retriever = WatchedRetriever()
        built = graph(server, retriever=retriever, trigger=Entropy(1.0))
        since_build(server)
        result = built.invoke(QUESTION)
        assert server.asked()[0]["top_logprobs"] == 20
        assert len(retriever.queries) > 0
        known = {piece.strip(): h for e in drafts(result) for piece, h in zip(e["pieces"], e["entropies"], strict=True)}
        # 0.45, 0.225, ... and 0.1: everything beyond the twenty alternatives adds less than a thousandth of a nat.
        masses = [0.1, *(0.9 / 2 / 2**i for i in range(19))]
        import math

        lower = sum(-m * math.log(m) for m in masses)
        assert lower < known["Hallin"] < lower + 1e-3


@pytest.mark.parametrize(("options", "found"), [({"most": 3}, 3), ({"most": 7, "refuse_more": True}, 5)])
def test_fewer_alternatives_than_requested_are_accepted(options, found):
    with serving(TEXT, Hallin=0.1, **options) as server:
        endpoint = Endpoint(chat(server), QUICK)
        assert endpoint.require(frozenset({"entropy"})) == {"logprob", "entropy"}
        assert endpoint.alternatives == found


def test_alternatives_that_become_fewer_are_recorded_and_the_answer_completes():
    with serving(TEXT, Hallin=0.1) as server:
        built = graph(server, trigger=Entropy(5.0))
        server.most = 2
        result = built.invoke(QUESTION)
        assert result["answer"] == TEXT
        assert sum(e.get("fewer_alternatives", 0) for e in drafts(result)) > 10


def test_a_server_without_log_probabilities_is_refused_at_build_time():
    with serving(TEXT, logprobs=False) as server:
        with pytest.raises(SignalUnavailableError, match=r"127.0.0.1.* reports no log-probabilities with 'base'"):
            graph(server)
        assert graph(server, preset="fixed_sentence", trigger=EverySentence()).invoke(QUESTION)["answer"] == TEXT


def test_a_server_without_alternatives_gives_no_entropy():
    with serving(TEXT, most=0) as server, pytest.raises(SignalUnavailableError, match="needs entropy"):
        graph(server, trigger=Entropy(1.0))


def test_missing_log_probabilities_are_recorded_and_trigger_nothing():
    with serving(TEXT, Hallin=0.1) as server:
        retriever = WatchedRetriever()
        built = graph(server, retriever=retriever)
        server.logprobs = False
        result = built.invoke(QUESTION)
        assert result["answer"] == TEXT
        assert not retriever.queries
        assert all(e["tokens_without_logprobs"] > 0 for e in drafts(result))


# ------------------------------------------------------------------------------------------- refused at build time


def test_an_unknown_model_is_refused_with_the_available_ones():
    with serving(TEXT) as server, pytest.raises(ConfigurationError, match="has no model 'gpt-9'; it has base"):
        graph(server, model=chat(server, model="gpt-9"))


def test_an_unreachable_server_is_named():
    with serving(TEXT) as server:
        url = server.url
    with pytest.raises(ServerUnavailableError, match=url):
        graph(server, model=chat(server))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_reported_as_such(status):
    with serving(TEXT) as server:
        server.faults = [Fault(status, path="/chat/completions")]
        with pytest.raises(ConfigurationError, match=f"refuses the key .HTTP {status}"):
            graph(server)


def test_a_server_of_another_protocol_is_distinguished_from_a_busy_one():
    with serving(TEXT) as server:
        server.faults = [Fault(body="<html>Welcome to nginx!</html>", path="/chat/completions")] * 9
        with pytest.raises(ServerError, match="violates the protocol"):
            graph(server)


# --------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("then", ["reset", "stop", "garbage", "error"])
async def test_a_broken_stream_is_continued_from_where_it_broke(then, asynchronous):
    with serving(TEXT) as server:
        built = graph(server)
        since_build(server)
        server.faults = [Fault(after=4, then=then)]
        seen = []
        if asynchronous:
            async for mode, part in built.astream(QUESTION, stream_mode=["custom", "values"]):
                seen.append(part["text"]) if mode == "custom" and part["type"] == "token" else None
                result = part if mode == "values" else None
        else:
            for mode, part in built.stream(QUESTION, stream_mode=["custom", "values"]):
                seen.append(part["text"]) if mode == "custom" and part["type"] == "token" else None
                result = part if mode == "values" else None
        assert result["answer"] == TEXT
        assert "".join(seen).startswith("The bridge was built by Aldous Wray.")  # no token is duplicated
        assert server.asked()[1]["messages"][-1] == {"role": "assistant", "content": "The bridge was built"}
        assert server.asked()[1]["max_completion_tokens"] == server.asked()[0]["max_completion_tokens"] - 4


async def test_retries_are_recorded_in_the_trace():
    with serving(TEXT) as server:
        built = graph(server)
        server.faults = [Fault(after=2), Fault(500), Fault(503)]
        result = built.invoke(QUESTION)
        assert result["answer"] == TEXT
        assert drafts(result)[0]["retries"] == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_server_that_keeps_failing_raises_after_the_last_attempt(asynchronous):
    with serving(TEXT) as server:
        built = graph(server, policy=ServerPolicy(attempts=3, first_wait=0.01))
        since_build(server)
        server.faults = [Fault(500, message="engine is dead")] * 9
        with pytest.raises(ServerUnavailableError, match="engine is dead"):
            await ask(built, asynchronous)
        assert len(server.asked()) == 3


def test_a_refused_request_is_not_retried():
    with serving(TEXT) as server:
        built = graph(server)
        since_build(server)
        server.faults = [Fault(400, message="too long")] * 9
        with pytest.raises(ServerError, match=r"refused the request .HTTP 400.*too long"):
            built.invoke(QUESTION)
        assert len(server.asked()) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hanging_server_times_out_and_is_retried(asynchronous):
    with serving(TEXT) as server:
        built = graph(server, model=chat(server, timeout=0.4))
        server.faults = [Fault(after=3, then="hang", seconds=3), Fault(seconds=3)]
        started = time.monotonic()
        result = await ask(built, asynchronous)
        assert result["answer"] == TEXT
        assert drafts(result)[0]["retries"] == 2
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_internal_error_is_not_blamed_on_the_server(asynchronous, monkeypatch):
    def mistaken(*_):
        raise KeyError("mine")

    monkeypatch.setattr("langgraph_dynrag.nodes.generate.emit_token", mistaken)
    with serving(TEXT) as server:
        built = graph(server, policy=ServerPolicy(failures=1))
        since_build(server)
        for _ in range(2):  # and it does not open the circuit breaker
            with pytest.raises(KeyError, match="mine"):
                await ask(built, asynchronous)
        assert len(server.asked()) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_garbled_reply_is_retried(asynchronous):
    with serving(TEXT) as server:
        generator = OpenAIGenerator.of(chat(server), frozenset(), QUICK)
        server.faults = [Fault(body="<html>Welcome to nginx!</html>", path="/chat/completions")] * 2
        if asynchronous:
            assert (await generator.areply("Go on.", {}, max_tokens=5)).text
            assert await generator.aask(["Go on."], {})
        else:
            assert generator.reply("Go on.", {}, max_tokens=5).text
            assert generator.ask(["Go on."], {})


def test_a_stream_that_breaks_after_its_last_token_is_complete():
    with serving(TEXT) as server:
        built = graph(server, trigger=EveryNTokens(6), lookahead=6)
        since_build(server)
        server.faults = [Fault(after=5), Fault(after=1)]
        assert built.invoke(QUESTION)["answer"] == TEXT
        assert [b["max_completion_tokens"] for b in server.asked()[:3]] == [6, 1, 6]


# ------------------------------------------------------------------------------------- servers that keep failing


@pytest.mark.parametrize("fault", [Fault(429, {"Retry-After": "0.2"}), Fault(503, seconds=0.2)], ids=["429", "503"])
async def test_many_questions_that_fail_at_once_may_all_retry(fault):
    with serving(TEXT) as server:
        built = graph(server)
        server.faults = [fault] * 6
        found = await asyncio.gather(*(built.ainvoke(QUESTION) for _ in range(6)))
        assert [result["answer"] for result in found] == [TEXT] * 6


def test_consecutive_rate_limits_do_not_open_the_breaker():
    with serving(TEXT) as server:
        built = graph(server, policy=ServerPolicy(attempts=4, first_wait=0.01, failures=2))
        server.faults = [Fault(429, {"Retry-After": "0.01"})] * 3
        assert built.invoke(QUESTION)["answer"] == TEXT


def test_a_server_that_failed_repeatedly_gets_no_requests_during_the_pause():
    with serving(TEXT) as server:
        built = graph(server, policy=ServerPolicy(attempts=1, failures=2, pause=0.5))
        server.faults = [Fault(500)] * 2
        for _ in range(2):
            with pytest.raises(ServerUnavailableError):
                built.invoke(QUESTION)
        since_build(server)
        with pytest.raises(ServerUnavailableError, match="2 times in a row"):
            built.invoke(QUESTION)
        assert not server.asked()
        time.sleep(0.55)
        assert built.invoke(QUESTION)["answer"] == TEXT


# ---------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_run_resumes_from_its_checkpoint_when_the_server_is_back(asynchronous):
    with serving(TEXT, Hallin=0.3) as server:
        retriever = WatchedRetriever()
        built = graph(
            server,
            retriever=retriever,
            policy=ServerPolicy(attempts=2, first_wait=0.01, pause=0.01),
            checkpointer=InMemorySaver(),
        )
        config = {"configurable": {"thread_id": "t"}}
        server.faults = [Fault(after=99), Fault(after=99), Fault(after=3), Fault(500), Fault(500)]
        with pytest.raises(ServerUnavailableError):
            await ask(built, asynchronous, config)
        server.stop()
        with pytest.raises(ServerUnavailableError):
            built.invoke(None, config)
        asked = list(retriever.queries)
        server.faults.clear()
        server.start()
        result = await built.ainvoke(None, config) if asynchronous else built.invoke(None, config)
        assert result["answer"] == TEXT
        assert retriever.queries[: len(asked)] == asked
        assert result["retrievals"] == len(retriever.queries) if "retrievals" in result else True
