"""Asynchronous runs leave the event loop to others while weights load, adapters are made and evidence is placed."""

import threading

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from langgraph_dynrag.injector import Placed
from langgraph_dynrag.triggers import Never
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

REPLY = said("It was Aldous Wray. So the answer is Aldous Wray.")


class Placing:
    """An injector that puts nothing anywhere, and remembers in which threads it was asked to."""

    mode = "combined"

    def __init__(self):
        self.threads = set()

    def prepare(self, passages):
        self.threads.add(threading.get_ident())
        return {"trained": 0, "translated": 0, "failed": {}, "seconds": 0.0}

    def place(self, passages, question=""):
        self.threads.add(threading.get_ident())
        return Placed(list(passages))


def graph_of(threads, **options):
    class Watching(Never):
        def before(self, question):
            threads.add(threading.get_ident())

    model = ScriptedChatModel(replies=[REPLY])
    options = {"prompt": AnswerPrompt(), "trigger": Watching(), "initial_retrieval": True, **options}
    return create_dynamic_rag(model, WatchedRetriever(), preset="single", **options)


async def test_a_run_begins_in_a_thread_and_its_events_come():
    threads = set()
    events = [e async for e in graph_of(threads).astream({"question": "Who?"}, stream_mode="custom")]
    assert threads
    assert threading.get_ident() not in threads
    assert events[0] == {"type": "question", "question": "Who?", "reason": "initial retrieval"}


async def test_evidence_is_placed_in_a_thread():
    injector = Placing()
    out = await graph_of(set(), injection=injector).ainvoke({"question": "Who built the bridge?"})
    assert out["short_answer"] == "Aldous Wray"
    assert injector.threads
    assert threading.get_ident() not in injector.threads
