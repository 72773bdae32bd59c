"""Dynamic retrieval with the embedded model in a real llama.cpp server."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import ServerPolicy, Trace, create_dynamic_rag
from langgraph_dynrag.triggers import Entropy, Never, TokenProbability
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError, ServerUnavailableError
from rag_backbone.text.units import sentences
from tests.llamacpp.conftest import chat
from tests.vllm.agreement import judged

pytestmark = pytest.mark.llamacpp
QUESTION = {"question": "Who commanded the ferry Patient Anna?"}
ROOT = Path(__file__).parents[2]
IN_FOUR_BITS = 0.5
"""Difference of two logits that llama.cpp's rounding of activations to eight bits may make, beside four-bit weights."""
LEADS = ("", "Tell me: ", "Please answer. ", "I should like to know: ")
QUESTIONS = [
    f"{lead}{question}"
    for lead in LEADS
    for question in (
        "Who commanded the ferry Patient Anna?",
        "In which year was Tarn Ellis founded?",
        "What is the capital of France?",
        "Why is the sky blue?",
        "How many legs has a spider?",
    )
]


def graph(running, retriever, **options):
    return create_dynamic_rag(chat(running), retriever, **{"preset": "flare", **options})


def drafts(result):
    return [e for e in result["trace"] if e["type"] == "draft"]


def generator(built):
    return built.nodes["generate"].bound.settings.generator


def test_the_server_writes_what_the_local_engine_writes_except_for_near_ties(embedded_lm, embedded_server, tmp_path):
    assert len(QUESTIONS) == 20
    gaps = []
    with LMDBStore(tmp_path / "store", model=embedded_lm.fingerprint) as store:
        served = LlamaCppModel(embedded_server, store, lm=embedded_lm)
        for question in QUESTIONS:
            ids = prompt_ids(embedded_lm.tokenizer, question)
            there = served.lm.engine.generate(Request(ids, 12)).token_ids
            gaps.append(judged(served.local, ids, None, there, 12).gap)
    print("\nllama.cpp, gaps where answers diverge:", [round(gap, 3) for gap in gaps if gap is not None])
    assert all(gap is None or gap < IN_FOUR_BITS for gap in gaps)
    assert gaps.count(None) >= 5


def test_characters_of_several_tokens_keep_their_tokens(embedded_lm, embedded_server, tmp_path):
    line = embedded_lm.tokenizer("Repeat: 🦙🦙東京🦙\n", add_special_tokens=False).input_ids
    with LMDBStore(tmp_path / "store", model=embedded_lm.fingerprint) as store:
        served = LlamaCppModel(embedded_server, store, lm=embedded_lm)
        found = served.lm.engine.generate(Request(line * 3 + line[:7], 6))
    assert "東京" in found.text  # of four tokens, two of which llama.cpp does not send
    assert found.text == embedded_lm.tokenizer.decode(found.token_ids)
    unknown = [math.isnan(step.logprob) for step in found.steps]
    assert any(unknown)
    assert all(not step.text for step, nan in zip(found.steps, unknown, strict=True) if nan)


@pytest.mark.parametrize("trigger", [TokenProbability(0.3), Entropy(2.0)])
async def test_flare_asks_when_the_model_is_unsure_and_continues_its_answer(embedded_server, retriever, trigger):
    built = graph(embedded_server, retriever, trigger=trigger)
    assert generator(built).signals == {"logprob", "entropy"} if isinstance(trigger, Entropy) else {"logprob"}
    result = await built.ainvoke(QUESTION)
    assert generator(built).endpoint.way == "last_message"
    assert generator(built).context_window == 4096
    assert result["answer"]
    assert "<|im_end|>" not in result["answer"]
    assert all(len(e["pieces"]) == len(e["logprobs"]) for e in drafts(result))
    assert not any(e.get("tokens_without_logprobs") or e.get("fewer_alternatives") for e in drafts(result))
    assert Trace.from_state(result).retrievals


def test_an_answer_drafted_in_pieces_is_joined_like_one_drafted_as_a_whole(embedded_server, retriever):
    options = {"initial_retrieval": False}
    whole = graph(embedded_server, retriever, trigger=Never(), **options).invoke(QUESTION)
    pieces = graph(embedded_server, retriever, trigger=TokenProbability(0.0), **options).invoke(QUESTION)
    assert len(drafts(whole)) <= len(drafts(pieces))
    first = sentences(whole["answer"])[0]
    assert pieces["answer"].startswith(whole["answer"][: first.end].strip())


def test_methods_that_need_hidden_signals_are_refused(embedded_server, retriever):
    with pytest.raises(ConfigurationError, match="LocalChatModel"):
        graph(embedded_server, retriever, preset="dragin")


def test_a_wrong_address_is_named(retriever):
    unreachable = ChatOpenAI(base_url="http://127.0.0.1:9/v1", model="m", api_key="none", max_retries=0)
    with pytest.raises(ServerUnavailableError, match="the server at http://127.0.0.1:9/v1"):
        create_dynamic_rag(unreachable, retriever, preset="flare")


class Killable:
    """A server in another process, which ends like one that crashes."""

    def __init__(self):
        self.port, self.base_url, self.name = 0, "", "model"
        self.start()

    def start(self):
        command = [sys.executable, "-m", "tests.llamacpp.worker", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.base_url = self.process.stdout.readline().strip()
        self.port = int(self.base_url.removesuffix("/v1").rpartition(":")[2])

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def killable():
    server = Killable()
    yield server
    server.kill()


def test_a_run_resumes_after_the_server_is_killed_in_mid_answer(killable, retriever):
    built = graph(
        killable,
        retriever,
        checkpointer=InMemorySaver(),
        server=ServerPolicy(attempts=2, first_wait=0.1),
        trigger=TokenProbability(0.0),
    )
    config, tokens = {"configurable": {"thread_id": "t"}}, []
    with pytest.raises(ServerUnavailableError, match=killable.base_url):
        for event in built.stream(QUESTION, config, stream_mode="custom"):
            if event["type"] == "token":
                tokens.append(event["text"])
                if len(tokens) == 2:
                    threading.Thread(target=killable.kill).start()
    assert tokens
    assert built.get_state(config).next == ("generate",)
    before = len(Trace.from_state(built.get_state(config).values).retrievals)
    killable.start()
    result = built.invoke(None, config)
    assert result["answer"]
    assert before == len(Trace.from_state(result).retrievals) == 1
