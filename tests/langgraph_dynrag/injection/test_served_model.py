"""Evidence in the parameters of a served model: each request names only the adapters of its own documents."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import AnswerPrompt, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector
from langgraph_dynrag.queries import LastSentence
from langgraph_dynrag.triggers import EverySentence
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving.served_model import ServedModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.generators.served import QUICK, chat
from tests.langgraph_dynrag.injection.weights import Fixed, drafts, injections
from tests.llamaindex_prag.made import random_values
from tests.openai_server import Fault, serving
from tests.tiny import tiny_llama, tiny_tokenizer

TEXT = "The bridge was built by Aldous Wray. He was born in the village of Hallin. So the answer is Hallin."
QUESTION = {"question": "Where was the builder of the bridge born?"}
TEXTS = [f"The bridge number {i} was built by engineer {i}." for i in range(4)]


@pytest.fixture
def store(tmp_path):
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as opened:
        made = ParametricModel(lm, opened, recipe="prag")
        for i, text in enumerate(TEXTS):
            opened.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0), {})
        yield opened


@pytest.fixture
def server():
    with serving(TEXT) as running:
        yield running


@pytest.fixture
def served(server, store, tmp_path):
    return ServedModel(server.url, store, recipe="prag", folder=tmp_path / "out", keep=8)


def graph(server, served, *texts, model=None, missing="context", forgetting=None, **options):
    found = [Document(t, metadata={"title": f"doc {n}", "source": f"doc-{n}"}) for n, t in enumerate(texts)]
    chosen = {
        "preset": "fixed_sentence",
        "trigger": EverySentence(),
        "query": LastSentence(),
        "prompt": AnswerPrompt(),
        "initial_retrieval": True,
        "server": QUICK,
        **options,
    }
    where = options.get("injection", "parametric")
    if isinstance(where, str):
        chosen["injection"] = ParametricInjector(
            served, route="retrieval", injection=where, missing=missing, forgetting=forgetting
        )
    return create_dynamic_rag(model or chat(server), Fixed(documents=found), **chosen)


def models(server):
    return [body["model"] for body in server.asked() if body.get("stream")]


@pytest.mark.parametrize("active", [None, 2])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_drafts_are_requested_from_the_adapter_and_the_prompt_has_no_passages(
    server, served, asynchronous, active
):
    injector = ParametricInjector(served, route="retrieval", missing="context", max_active=active)
    built = graph(server, None, TEXTS[0], TEXTS[1], injection=injector)
    server.requests.clear()
    result = await built.ainvoke(QUESTION) if asynchronous else built.invoke(QUESTION)
    assert result["answer"] == TEXT
    (name,) = set(models(server))
    assert name.startswith("prag-")
    assert server.adapters.keys() == {name}
    assert "number" not in str(server.asked())
    assert injections(result)[0]["in_weights"] == [s["id"] for s in result["sources"]][: active or 1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_adapter_that_the_server_unloaded_is_loaded_again(server, served, asynchronous):
    built = graph(server, served, TEXTS[0])
    built.invoke(QUESTION)
    server.adapters.clear()
    result = await built.ainvoke(QUESTION) if asynchronous else built.invoke(QUESTION)
    assert result["answer"] == TEXT
    assert drafts(result)[0]["adapters_reloaded"] == 1
    assert len(server.adapters) == 1


def test_an_adapter_that_never_stays_loaded_raises(server, served, monkeypatch):
    built = graph(server, served, TEXTS[0])
    monkeypatch.setattr(server, "answer", lambda path, body: {"text": "Success"})
    with pytest.raises(ServerError, match="HTTP 404"):
        built.invoke(QUESTION)


def test_adapters_are_loaded_again_after_the_server_crashes(server, served):
    built = graph(server, served, TEXTS[0])
    built.invoke(QUESTION)
    server.faults = [Fault(after=3)]
    server.adapters.clear()
    result = built.invoke(QUESTION)
    assert result["answer"] == TEXT


def test_combined_injection_adds_the_text_and_passages_without_adapter_are_put_in_the_prompt(server, served):
    built = graph(server, served, TEXTS[0], "A road nobody knows.", injection="combined")
    server.requests.clear()
    built.invoke(QUESTION)
    asked = str(server.asked())
    assert "number 0" in asked
    assert "A road nobody knows." in asked
    assert all(name.startswith("prag-") for name in models(server))


def test_concurrent_runs_name_only_their_own_adapters(server, served):
    graphs = [graph(server, served, text) for text in TEXTS]
    names = []
    for built in graphs:
        server.requests.clear()
        built.invoke(QUESTION)
        names.append(set(models(server)))
    assert all(len(n) == 1 for n in names)
    assert len(set().union(*names)) == 4
    server.requests.clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda g: g.invoke(QUESTION), graphs))

    async def together():
        await asyncio.gather(*(g.ainvoke(QUESTION) for g in graphs))

    asyncio.run(together())
    assert set(models(server)) == set().union(*names)


def test_incompatible_options_are_refused_with_the_line_to_write(server, served):
    line = rf"ChatOpenAI\(base_url='{server.url}', model='base'"
    with pytest.raises(ConfigurationError, match=line):
        graph(server, served, TEXTS[0], model=LocalChatModel())
    with serving(TEXT) as other, pytest.raises(ConfigurationError, match=line):
        graph(server, served, TEXTS[0], model=chat(other))
    with pytest.raises(ConfigurationError, match="missing='train' needs the model's weights"):
        graph(server, served, TEXTS[0], missing="train")
    with pytest.raises(ConfigurationError, match="needs the model's weights, and only the server's address"):
        graph(server, served, TEXTS[0], forgetting=0.05)
