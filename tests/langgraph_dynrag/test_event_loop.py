"""Asynchronous runs do not block the event loop while weights load, adapters are built and evidence is placed."""

import asyncio
import threading

import pytest
from langchain_core.callbacks import AsyncCallbackHandler

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.injection.injector import PlacedEvidence
from langgraph_dynrag.triggers import Never
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

REPLY = said("It was Aldous Wray. So the answer is Aldous Wray.")


class Placing:
    """An injector that injects nothing and records the threads it is called from."""

    injection = "combined"

    def __init__(self):
        self.threads = set()

    def prepare(self, passages, question=""):
        self.threads.add(threading.get_ident())
        return {"trained": 0, "translated": 0, "failed": {}, "seconds": 0.0}

    def place(self, passages, question=""):
        self.threads.add(threading.get_ident())
        return PlacedEvidence(list(passages))


def graph_of(threads, **options):
    class Watching(Never):
        def before(self, question):
            threads.add(threading.get_ident())

    model = ScriptedChatModel(replies=[REPLY])
    options = {"prompt": AnswerPrompt(), "trigger": Watching(), "initial_retrieval": True, **options}
    return create_dynamic_rag(model, WatchedRetriever(), preset="single", **options)


async def test_a_run_begins_in_a_thread_and_streams_its_events():
    threads = set()
    events = [e async for e in graph_of(threads).astream({"question": "Who?"}, stream_mode="custom")]
    assert threads
    assert threading.get_ident() not in threads
    told = {"type": "question", "question": "Who?", "reason": "initial retrieval", "preset": "single"}
    assert events[0] == told


async def test_evidence_is_placed_in_a_thread():
    injector = Placing()
    out = await graph_of(set(), injection=injector).ainvoke({"question": "Who built the bridge?"})
    assert out["short_answer"] == "Aldous Wray"
    assert injector.threads
    assert threading.get_ident() not in injector.threads


class Hearing(AsyncCallbackHandler):
    """Records the event loops in which it receives tokens."""

    def __init__(self):
        self.loops = set()

    async def on_llm_new_token(self, token, **_):
        self.loops.add(asyncio.get_running_loop())


def local_graph(chat, **options):
    prompt = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
    return create_dynamic_rag(chat, WatchedRetriever(), prompt=prompt, **options)


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm)


@pytest.mark.parametrize("where", ["run", "model", "nowhere"])
async def test_asynchronous_callbacks_get_the_same_tokens_in_the_event_loop(chat, where):
    question, hearing = {"question": "Who built the bridge?"}, Hearing()
    if where == "model":
        chat.callbacks = [hearing]
    graph = local_graph(chat, preset="flare", budgets=Budgets(tokens=24))
    config = {"callbacks": [hearing]} if where == "run" else {}
    events = [e async for e in graph.astream(question, config, stream_mode="custom")]
    chat.callbacks = None
    expected = list(graph.stream(question, stream_mode="custom"))
    tokens = [e["text"] for e in expected if e["type"] == "token"]
    assert tokens
    assert [e["text"] for e in events if e["type"] == "token"] == tokens
    assert hearing.loops == (set() if where == "nowhere" else {asyncio.get_running_loop()})


async def test_cancellation_ends_the_draft_early(chat):
    engine = chat.lm.engine
    graph = local_graph(chat, preset="no_retrieval", budgets=Budgets(tokens=400), lookahead=400)
    question = {"question": "Who built the bridge in the capital?"}
    before = engine.counts.forwards
    await graph.ainvoke(question)
    whole = engine.counts.forwards - before
    assert whole > 100

    async def read():
        async for event in graph.astream(question, stream_mode="custom"):
            if event["type"] == "token":
                begun.set()

    begun, before = asyncio.Event(), engine.counts.forwards
    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    made = -1
    while made != (made := engine.counts.forwards - before):
        await asyncio.sleep(0.2)
    assert made < whole / 2
