"""The Python blocks of README and of the pages run in their order, as a reader would run them.

Each page gets a folder with the notes of "Start here", a tiny random model in place of the embedded one, a recipe with
four questions per passage, presets with short answers, and servers on the loopback interface in place of those at
port 8000. What the models say is nonsense; everything else is real.
A page may use `model`, `retriever` and `lm` of "Start here" without defining them again.
"""

import logging
import math
from pathlib import Path

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import BM25Retriever, Budgets, LocalChatModel, create_mcp_server
from langgraph_dynrag.presets import methods
from llamaindex_prag.adapters.recipe import RECIPES
from rag_backbone import CausalLM, Request
from tests.docs.pages import DOCS, blocks, pages
from tests.langgraph_dynrag.generators.states_server import serving_states
from tests.langgraph_dynrag.mcp.served import serving
from tests.langgraph_dynrag.retrieval.chroma_servers import ChromaProcess
from tests.openai_server import OpenAIServer, knowing
from tests.tiny import tiny_llama, tiny_tokenizer

PAGES = {page.stem: page for page in pages() if blocks(page)}
SERVER = "http://127.0.0.1:8000/v1"
STATES_SERVER, STATES_FOLDER = "http://127.0.0.1:8001/v1", "/dev/shm/states"
MCP_SERVER = "http://127.0.0.1:8000/mcp"


@pytest.fixture
def lm():
    """The model that stands in for the embedded one; its window holds the worked examples of the presets."""
    tiny = CausalLM(tiny_llama(max_position_embeddings=1 << 14), tiny_tokenizer(), name="tiny")
    tiny.loaded_with = {"name": "embedded"}
    return tiny


@pytest.fixture
def server(lm):
    """A server that knows one sentence in a chat, and generates with the tiny model from a prompt of tokens."""
    chat = knowing("Tarn Ellis was founded in 1683. So the answer is 1683.", lambda: running)

    def says(body):
        if "messages" in body:
            return chat(body)
        found = lm.engine.generate(Request(body["prompt"], body["max_tokens"], stop=body.get("stop") or ()))
        return [(step.text, math.exp(step.logprob), step.token_id) for step in found.steps]

    with OpenAIServer(says, tokenizer=lm.tokenizer, window=1 << 14) as running:
        yield running


@pytest.fixture
def given(lm, tmp_path, monkeypatch):
    """What a page may use, in a folder that holds the notes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr(CausalLM, "from_pretrained", lambda *_, **__: lm)
    short = RECIPES["distill"].changed(epochs=1, phrases=4, unrelated=0, with_passage=0)
    monkeypatch.setitem(RECIPES, "distill", short)
    monkeypatch.setattr("llama_index.core.global_tokenizer", None)  # a page sets it; later tests count as before
    monkeypatch.setattr(methods, "Budgets", lambda **limits: Budgets(**{**limits, "tokens": 16}))
    exec(blocks(DOCS / "index.md")[0].code, {})
    notes = [Document(p.read_text(), metadata={"title": p.stem}) for p in sorted(Path("notes").iterdir())]
    retriever = BM25Retriever.from_documents(notes, k=2)
    loggers = [logging.getLogger(name) for name in ("langgraph_dynrag", "llamaindex_prag")]
    levels = [logger.level for logger in loggers]
    yield {"__name__": "page", "model": LocalChatModel.from_causal_lm(lm), "retriever": retriever, "lm": lm}
    for logger, level in zip(loggers, levels, strict=True):  # a page sets them
        logger.setLevel(level)


@pytest.fixture
def mcp_server(given):
    with serving(create_mcp_server(given["retriever"])) as url:
        yield url


@pytest.fixture
def states_server(tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    with serving_states(folder) as (_, url):
        yield url, str(folder)


@pytest.fixture
def chroma(page, tmp_path_factory):
    """The port of a Chroma server, if the page uses one, in place of 8000."""
    if "chromadb.HttpClient(host" not in PAGES[page].read_text("utf-8"):
        yield "port=8000"
        return
    started = ChromaProcess(tmp_path_factory.mktemp("chroma")).start()
    yield f"port={started.port}"
    started.stop()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_blocks_of_a_page_run(page, given, server, chroma, request):
    for block in blocks(PAGES[page]):
        if block.why_not is None:
            code = block.code.replace(SERVER, server.url).replace("port=8000", chroma)
            if MCP_SERVER in code:
                code = code.replace(MCP_SERVER, request.getfixturevalue("mcp_server"))
            if STATES_SERVER in code:
                url, folder = request.getfixturevalue("states_server")
                code = code.replace(STATES_SERVER, url).replace(STATES_FOLDER, folder)
            exec(compile(code, block.where, "exec"), given)


def test_few_blocks_are_not_run_and_each_says_why():
    left_out = [block.where for page in PAGES.values() for block in blocks(page) if block.why_not is not None]
    assert len(left_out) <= 9, left_out  # five of them for packages that have test runs of their own
