"""What a graph asks of a server: nothing that its method does not need, each thing once, and nothing that was said."""

import asyncio
import threading
import time

import pytest

from langgraph_dynrag import Capabilities, ServerPolicy, acreate_dynamic_rag, create_dynamic_rag, forget_endpoints
from langgraph_dynrag.generators.endpoint import Endpoint
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.triggers import Entropy
from rag_backbone.errors import (
    ConfigurationError,
    NoAnswerError,
    ServerError,
    ServerUnavailableError,
    SignalUnavailableError,
)
from tests.langgraph_dynrag.generators.test_openai import QUESTION, QUICK, TEXT, chat
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server import Fault, serving

WITHOUT_SIGNALS = ("no_retrieval", "single", "fixed_sentence", "fixed_length")


def made(server, preset, *, policy=QUICK, model=None, **options):
    retriever = None if preset == "no_retrieval" else WatchedRetriever()
    model = model or chat(server)
    return create_dynamic_rag(model, retriever, preset=preset, prompt=AnswerPrompt(), server=policy, **options)


@pytest.mark.parametrize("preset", WITHOUT_SIGNALS)
def test_a_method_that_reads_no_signal_asks_nothing_when_it_is_built(preset):
    with serving(TEXT) as server:
        built = made(server, preset)
        assert server.requests == []
        assert built.invoke(QUESTION)["answer"] == TEXT


@pytest.mark.parametrize("preset", ["no_retrieval", "single"])
def test_an_answer_of_one_draft_never_asks_how_it_would_be_continued(preset):
    with serving(TEXT) as server:
        built = made(server, preset)
        for _ in range(2):
            assert built.invoke(QUESTION)["answer"] == TEXT
        assert [body for body in server.probes() if body] == []
        assert [path for path, _ in server.requests].count("/models") == 1


def test_log_probabilities_are_asked_for_by_one_request_and_once_for_all_graphs():
    with serving(TEXT) as server:
        for _ in range(3):
            made(server, "flare")
        made(server, "flare", model=chat(server, temperature=0.7))
        assert len(server.requests) == 1
        made(server, "flare", trigger=Entropy(1.0))
        assert len(server.requests) == 2
        assert server.requests[1][1]["top_logprobs"] == 20


def test_all_is_found_out_once_however_many_graphs_run():
    with serving(TEXT) as server:
        for _ in range(3):
            assert made(server, "flare").invoke(QUESTION)["answer"] == TEXT
        found_out = len(server.probes())
        assert found_out <= 4
        forget_endpoints()
        made(server, "flare").invoke(QUESTION)
        assert len(server.probes()) == 2 * found_out


@pytest.mark.parametrize("other", [{"model": "tuned"}, {"api_key": "another"}, {"extra_body": {"top_k": 1}}])
def test_another_model_key_or_field_is_another_endpoint(other):
    with serving(TEXT) as server:
        server.adapters["tuned"] = "somewhere"
        made(server, "flare")
        made(server, "flare", model=chat(server, **other))
        assert len(server.requests) == 2


def test_a_refusal_is_not_remembered():
    with serving(TEXT) as server:
        server.faults = [Fault(401)]
        with pytest.raises(ConfigurationError, match="refuses the key"):
            made(server, "flare")
        assert made(server, "flare").invoke(QUESTION)["answer"] == TEXT


def test_graphs_that_are_built_at_once_share_what_is_found_out():
    with serving(TEXT) as server:
        threads = [threading.Thread(target=made, args=(server, "flare")) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 1


# ----------------------------------------------------------------------------------------------------- said, not asked


def test_what_is_said_of_a_server_is_not_asked():
    said = Capabilities(alternatives=20, continuing="flags", context_window=2000, opens_reasoning=False)
    with serving(TEXT) as server:
        for preset, options in (("flare", {}), ("flare", {"trigger": Entropy(1.0)}), ("fixed_sentence", {})):
            built = made(server, preset, policy=ServerPolicy(capabilities=said), **options)
            assert built.invoke(QUESTION)["answer"] == TEXT
        assert server.probes() == []
        assert any("continue_final_message" in body for body in server.asked())


def test_a_graph_of_a_server_that_is_not_up_yet_is_built_by_what_is_said_of_it():
    with serving(TEXT) as server:
        server.stop()
        policy = ServerPolicy(capabilities=Capabilities(), first_wait=0.01)
        built = made(server, "flare", policy=policy, model=chat(server))
        server.start()
        assert built.invoke(QUESTION)["answer"] == TEXT


def test_what_is_said_is_checked():
    with pytest.raises(ConfigurationError, match="alternatives is -1"):
        Capabilities(alternatives=-1)
    with pytest.raises(ConfigurationError, match="logprobs is 'yes'"):
        Capabilities(logprobs="yes")
    with pytest.raises(ConfigurationError, match="continuing"):
        Capabilities(continuing="auto")
    with pytest.raises(ConfigurationError, match=r"logprob.*[Dd]id you mean.*logprobs"):
        Capabilities(logprob=True)
    with pytest.raises(ConfigurationError, match="'flags', and capabilities say 'ask_again'; give one"):
        ServerPolicy(continuing="flags", capabilities=Capabilities())
    with pytest.raises(ConfigurationError, match="capabilities"):
        ServerPolicy(capabilities={"logprobs": True})


def test_a_server_that_is_said_to_report_nothing_is_refused_where_signals_are_needed():
    with serving(TEXT) as server:
        with pytest.raises(SignalUnavailableError, match="reports no log-probabilities"):
            made(server, "flare", policy=ServerPolicy(capabilities=Capabilities(logprobs=False)))
        with pytest.raises(SignalUnavailableError, match="entropy"):
            made(server, "flare", trigger=Entropy(1.0), policy=ServerPolicy(capabilities=Capabilities(alternatives=0)))
        assert server.requests == []


# ----------------------------------------------------------------------------------------------- servers that are down


def test_a_server_that_cannot_be_reached_is_told_at_once_and_only_where_it_is_asked():
    with serving(TEXT) as server:
        server.stop()
        down = chat(server)
        made(server, "no_retrieval", model=down)
        slow = ServerPolicy(first_wait=30, attempts=4)
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="could not answer"):
            made(server, "flare", model=down, policy=slow)
        assert time.monotonic() - began < 20  # the first pause of the policy alone is longer


def test_a_wrong_model_or_key_is_told_by_the_run_where_it_was_not_asked_before():
    with serving(TEXT) as server:
        with pytest.raises(ConfigurationError, match="has no model 'basis'; it has base"):
            made(server, "no_retrieval", model=chat(server, model="basis")).invoke(QUESTION)
        server.faults = [Fault(401, message="no such key")]
        with pytest.raises(ConfigurationError, match="refuses the key"):
            made(server, "single").invoke(QUESTION)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_server_that_fails_while_it_is_found_out_ends_the_run_with_an_error(asynchronous):
    with serving(TEXT) as server:
        built = made(server, "fixed_sentence")
        server.fails = lambda number: Fault(500) if number > 1 else None
        with pytest.raises((ServerError, NoAnswerError), match="127.0.0.1"):
            await (built.ainvoke(QUESTION) if asynchronous else asyncio.to_thread(built.invoke, QUESTION))


# -------------------------------------------------------------------------------------------------------- event loops


async def loop_stays_free(work):
    """The result of some work, and the longest time in seconds that the event loop was held meanwhile."""
    longest, over = 0.0, False

    async def tick():
        nonlocal longest
        while not over:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    ticking = asyncio.create_task(tick())
    result = await work
    over = True
    await ticking
    return result, longest


async def test_an_event_loop_stays_free_while_a_graph_is_built():
    with serving(TEXT) as server:
        server.faults = [Fault(seconds=3)]
        work = acreate_dynamic_rag(
            chat(server), WatchedRetriever(), preset="flare", prompt=AnswerPrompt(), server=QUICK
        )
        built, longest = await loop_stays_free(work)
        assert longest < 2
        assert (await built.ainvoke(QUESTION))["answer"] == TEXT


async def test_an_event_loop_stays_free_while_it_is_found_out_how_an_answer_goes_on():
    with serving(TEXT) as server:
        built = made(server, "fixed_sentence")
        server.fails = lambda number: Fault(seconds=3) if number == 2 else None
        result, longest = await loop_stays_free(built.ainvoke(QUESTION))
        assert result["answer"] == TEXT
        assert longest < 2


async def test_the_asynchronous_way_refuses_as_the_other_one_does():
    told = pytest.raises(SignalUnavailableError, match="reports no log-probabilities")
    with serving(TEXT, logprobs=False) as server, told:
        await acreate_dynamic_rag(chat(server), WatchedRetriever(), preset="flare", server=QUICK)


# -------------------------------------------------------------------------------------------------- by the first reply


@pytest.mark.parametrize("thinks", ["", "Who built it? Joan Pike."])
def test_whether_replies_begin_with_reasoning_is_learnt_from_the_first_one(thinks):
    with serving(TEXT, thinks=thinks, thinks_in="closing", continues="never") as server:
        built = made(server, "fixed_sentence")
        assert Endpoint(chat(server), QUICK).opens_reasoning is None
        for _ in range(2):
            result = built.invoke(QUESTION)
            assert result["answer"] == TEXT
            assert Endpoint(chat(server), QUICK).opens_reasoning is bool(thinks)
