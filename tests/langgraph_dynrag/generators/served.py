"""Graphs whose model is behind a server: the model, its question and text, and what a run of them shows."""

from langchain_openai import ChatOpenAI

from langgraph_dynrag import AnswerPrompt, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.generators.endpoint import Endpoint
from langgraph_dynrag.triggers import TokenProbability
from tests.langgraph_dynrag.scripted import WatchedRetriever

TEXT = "The bridge was built by Aldous Wray. He was born in the village of Hallin. So the answer is Hallin."


QUESTION = {"question": "Where was the builder of the bridge born?"}


QUICK = ServerPolicy(first_wait=0.01, longest_wait=2.0, pause=0.3)


def chat(server, **options):
    given = {"model": "base", "api_key": "none", "temperature": 0, "max_retries": 0, "timeout": 20, **options}
    return ChatOpenAI(base_url=server.url, **given)


def graph(server, *, policy=QUICK, retriever=None, model=None, **options):
    chosen = {"preset": "flare", "trigger": TokenProbability(0.5), "initial_retrieval": False, **options}
    model = model or chat(server)
    built = create_dynamic_rag(model, retriever or WatchedRetriever(), prompt=AnswerPrompt(), server=policy, **chosen)
    known = Endpoint(model, policy)
    assert known.way, known.context_window  # probed now, so that a run's requests and faults are only its own
    return built


async def ask(built, asynchronous, config=None):
    return await built.ainvoke(QUESTION, config) if asynchronous else built.invoke(QUESTION, config)


def drafts(result):
    return [e for e in result["trace"] if e["type"] == "draft"]


def since_build(server):
    server.requests.clear()
    return server
