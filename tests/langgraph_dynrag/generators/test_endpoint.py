"""A server is probed only for what a graph's method needs, once, and never for stated capabilities."""

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
from tests.langgraph_dynrag.generators.served import QUESTION, QUICK, TEXT, chat
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server import Fault, serving

WITHOUT_SIGNALS = ("no_retrieval", "single", "fixed_sentence", "fixed_length")


def made(server, preset, *, policy=QUICK, model=None, **options):
    retriever = None if preset == "no_retrieval" else WatchedRetriever()
    model = model or chat(server)
    return create_dynamic_rag(model, retriever, preset=preset, prompt=AnswerPrompt(), server=policy, **options)


@pytest.mark.parametrize("preset", WITHOUT_SIGNALS)
def test_building_a_method_without_signals_sends_no_requests(preset):
    with serving(TEXT) as server:
        built = made(server, preset)
        assert server.requests == []
        assert built.invoke(QUESTION)["answer"] == TEXT


@pytest.mark.parametrize("preset", ["no_retrieval", "single"])
def test_a_single_draft_answer_never_probes_how_to_continue(preset):
    with serving(TEXT) as server:
        built = made(server, preset)
        for _ in range(2):
            assert built.invoke(QUESTION)["answer"] == TEXT
        assert [body for body in server.probes() if body] == []
        assert [path for path, _ in server.requests].count("/models") == 1


def test_log_probabilities_are_probed_once_for_all_graphs():
    with serving(TEXT) as server:
        for _ in range(3):
            made(server, "flare")
        made(server, "flare", model=chat(server, temperature=0.7))
        assert len(server.requests) == 1
        made(server, "flare", trigger=Entropy(1.0))
        assert len(server.requests) == 2
        assert server.requests[1][1]["top_logprobs"] == 20


def test_a_server_is_probed_once_however_many_graphs_run():
    with serving(TEXT) as server:
        for _ in range(3):
            assert made(server, "flare").invoke(QUESTION)["answer"] == TEXT
        found_out = len(server.probes())
        assert found_out <= 4
        forget_endpoints()
        made(server, "flare").invoke(QUESTION)
        assert len(server.probes()) == 2 * found_out


@pytest.mark.parametrize("other", [{"model": "tuned"}, {"api_key": "another"}, {"extra_body": {"top_k": 1}}])
def test_another_model_key_or_request_field_is_a_separate_endpoint(other):
    with serving(TEXT) as server:
        server.adapters["tuned"] = "somewhere"
        made(server, "flare")
        made(server, "flare", model=chat(server, **other))
        assert len(server.requests) == 2


def test_a_refusal_is_not_cached():
    with serving(TEXT) as server:
        server.faults = [Fault(401)]
        with pytest.raises(ConfigurationError, match="refuses the key"):
            made(server, "flare")
        assert made(server, "flare").invoke(QUESTION)["answer"] == TEXT


def test_graphs_built_concurrently_share_the_probes():
    with serving(TEXT) as server:
        threads = [threading.Thread(target=made, args=(server, "flare")) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 1


# -------------------------------------------------------------------------------- stated capabilities are not probed


def test_stated_capabilities_are_not_probed():
    said = Capabilities(alternatives=20, continuing="flags", context_window=2000, opens_reasoning=False)
    with serving(TEXT) as server:
        for preset, options in (("flare", {}), ("flare", {"trigger": Entropy(1.0)}), ("fixed_sentence", {})):
            built = made(server, preset, policy=ServerPolicy(capabilities=said), **options)
            assert built.invoke(QUESTION)["answer"] == TEXT
        assert server.probes() == []
        assert any("continue_final_message" in body for body in server.asked())


def test_a_graph_is_built_from_stated_capabilities_before_its_server_is_up():
    with serving(TEXT) as server:
        server.stop()
        policy = ServerPolicy(capabilities=Capabilities(), first_wait=0.01)
        built = made(server, "flare", policy=policy, model=chat(server))
        server.start()
        assert built.invoke(QUESTION)["answer"] == TEXT


def test_a_server_stated_to_report_nothing_is_refused_if_signals_are_needed():
    with serving(TEXT) as server:
        with pytest.raises(SignalUnavailableError, match="reports no log-probabilities"):
            made(server, "flare", policy=ServerPolicy(capabilities=Capabilities(logprobs=False)))
        with pytest.raises(SignalUnavailableError, match="entropy"):
            made(server, "flare", trigger=Entropy(1.0), policy=ServerPolicy(capabilities=Capabilities(alternatives=0)))
        assert server.requests == []


# ----------------------------------------------------------------------------------------------- servers that are down


def test_an_unreachable_server_is_reported_at_once_and_only_if_it_is_probed():
    with serving(TEXT) as server:
        server.stop()
        down = chat(server)
        made(server, "no_retrieval", model=down)
        slow = ServerPolicy(first_wait=30, attempts=4)
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="could not answer"):
            made(server, "flare", model=down, policy=slow)
        assert time.monotonic() - began < 20  # the policy's first pause alone is longer


def test_a_wrong_model_or_key_is_reported_by_the_run_if_it_was_not_probed_before():
    with serving(TEXT) as server:
        with pytest.raises(ConfigurationError, match="has no model 'basis'; it has base"):
            made(server, "no_retrieval", model=chat(server, model="basis")).invoke(QUESTION)
        server.faults = [Fault(401, message="no such key")]
        with pytest.raises(ConfigurationError, match="refuses the key"):
            made(server, "single").invoke(QUESTION)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_server_that_fails_during_a_probe_ends_the_run_with_an_error(asynchronous):
    with serving(TEXT) as server:
        built = made(server, "fixed_sentence")
        server.fails = lambda number: Fault(500) if number > 1 else None
        with pytest.raises((ServerError, NoAnswerError), match="127.0.0.1"):
            await (built.ainvoke(QUESTION) if asynchronous else asyncio.to_thread(built.invoke, QUESTION))


# -------------------------------------------------------------------------------------------------------- event loops


async def loop_stays_free(work):
    """Return the result of `work`, and the longest time in seconds for which it blocked the event loop."""
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


async def test_building_a_graph_does_not_block_the_event_loop():
    with serving(TEXT) as server:
        server.faults = [Fault(seconds=3)]
        work = acreate_dynamic_rag(
            chat(server), WatchedRetriever(), preset="flare", prompt=AnswerPrompt(), server=QUICK
        )
        built, longest = await loop_stays_free(work)
        assert longest < 2
        assert (await built.ainvoke(QUESTION))["answer"] == TEXT


async def test_probing_how_to_continue_does_not_block_the_event_loop():
    with serving(TEXT) as server:
        built = made(server, "fixed_sentence")
        server.fails = lambda number: Fault(seconds=3) if number == 2 else None
        result, longest = await loop_stays_free(built.ainvoke(QUESTION))
        assert result["answer"] == TEXT
        assert longest < 2


async def test_asynchronous_creation_refuses_like_the_synchronous_one():
    told = pytest.raises(SignalUnavailableError, match="reports no log-probabilities")
    with serving(TEXT, logprobs=False) as server, told:
        await acreate_dynamic_rag(chat(server), WatchedRetriever(), preset="flare", server=QUICK)


# -------------------------------------------------------------------------------------- learned from the first reply


@pytest.mark.parametrize("thinks", ["", "Who built it? Joan Pike."])
def test_whether_replies_begin_with_reasoning_is_learned_from_the_first_reply(thinks):
    with serving(TEXT, thinks=thinks, thinks_in="closing", continues="never") as server:
        built = made(server, "fixed_sentence")
        assert Endpoint(chat(server), QUICK).opens_reasoning is None
        for _ in range(2):
            result = built.invoke(QUESTION)
            assert result["answer"] == TEXT
            assert Endpoint(chat(server), QUICK).opens_reasoning is bool(thinks)
