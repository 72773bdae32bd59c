"""Fixtures and helpers: a tiny model with a store of random adapters, a retriever of fixed nodes, and query engines."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor, postprocessor
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from tests.llamaindex_prag.llama_index.tenants import Tenants, small_lm
from tests.llamaindex_prag.made import random_values

QUESTION = "Who wrote a letter?"
TEXTS = [
    "The keeper of the lighthouse wrote a letter in the winter of 1871.",
    "A bridge of forty-one arches crosses the river at the old mill.",
    "Nobody came back to the town after the river rose in 1954.",
    "The engineer built a road to the capital for his brother.",
]


def node(i: int, **metadata) -> TextNode:
    return TextNode(id_=f"node-{i}", text=TEXTS[i], metadata={"file": f"secret-{i}.txt", **metadata})


class Fixed(BaseRetriever):
    """Returns the same nodes for every query."""

    def __init__(self, *numbers: int, nodes=None):
        self.found = nodes or [NodeWithScore(node=node(i), score=0.9 - 0.1 * i) for i in numbers]
        super().__init__()

    def _retrieve(self, query_bundle):
        return list(self.found)

    async def _aretrieve(self, query_bundle):
        await asyncio.sleep(0)
        return list(self.found)


@pytest.fixture
def llm(lm, store):
    llm = ParametricLLM(lm=lm, store=store, recipe="prag", max_adapters=3, max_new_tokens=12)
    for i, text in enumerate(TEXTS[:3]):  # the fourth text has no adapter
        adapter = Adapter(llm.model.layout, random_values(llm.model.layout, i, 0.1), 2.0)
        store.put(llm.model.key(text), adapter, {"made": "at random"}, owners=[f"doc-{i}"])
    return llm


@pytest.fixture
def calls(llm, monkeypatch):
    """Record (decoded prompt, active adapters) of every generation that the engine admits.

    Only the trial of a job's pace, which runs once per machine, has a text as its prompt; it is left out.
    """
    engine, found = llm.model.lm.engine, []
    original = engine._admit

    def watched(request):
        if not isinstance(request.prompt, str):
            found.append((engine.tokenizer.decode(list(request.prompt)), request.adapters))
        return original(request)

    monkeypatch.setattr(engine, "_admit", watched)
    return found


def engine_of(llm, retriever, mode="compact", **options):
    post = ParametricNodePostprocessor(
        llm=llm, **{"missing": "error", "route": "retrieval", "max_active": 3, **options.pop("post", {})}
    )
    return RetrieverQueryEngine.from_args(retriever, llm=llm, response_mode=mode, node_postprocessors=[post], **options)


def alone(llm, *numbers, question=QUESTION, **options):
    """Return the engine's answer with these adapters, without LlamaIndex."""
    selection = llm.model.select([llm.model.key(TEXTS[i]) for i in numbers], **options)
    ids = prompt_ids(llm.model.lm.tokenizer, question)
    return llm.model.lm.engine.generate(Request(ids, llm.max_new_tokens, adapters=selection)).text


def watched_events(monkeypatch):
    """Record the postprocessor's events from now on."""
    found = []
    monkeypatch.setattr(postprocessor, "dispatcher", SimpleNamespace(event=found.append))
    return found


@pytest.fixture
def answered(llm):
    """A node of an answered query."""
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", strength=0.5)
    (found,) = post.postprocess_nodes([NodeWithScore(node=node(0, page=3), score=0.7)], query_str=QUESTION)
    return found


def assert_nothing_pasted(calls):
    for prompt, _ in calls:
        assert not any(text in prompt or text[:20] in prompt for text in TEXTS)
        assert "secret" not in prompt
        assert "⟦" not in prompt
        assert "prior knowledge" not in prompt


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread, as a second makes a small model many times slower when other processes keep the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fifty(one_thread, tmp_path_factory):
    """Return a factory of users of a new small model; all these models have the same weights and store."""
    folder = tmp_path_factory.mktemp("isolation") / "store"
    with LMDBStore(folder, model=small_lm().fingerprint, encoding="float32", map_size=1 << 26) as store:
        yield lambda slots: Tenants(small_lm(), store, 50, size=0.2, slots=slots)


@pytest.fixture
def tenants(fifty):
    return fifty(slots=9)
