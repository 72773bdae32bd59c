"""Fixtures: a tiny model with a store of random adapters, and a retriever that returns fixed nodes."""

import asyncio

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.llama_index import ParametricLLM
from tests.llamaindex_prag.made import random_values

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
    """Record (decoded prompt, active adapters) of every generation that the engine admits."""
    engine, found = llm.model.lm.engine, []
    original = engine._admit

    def watched(request):
        found.append((engine.tokenizer.decode(list(request.prompt)), request.adapters))
        return original(request)

    monkeypatch.setattr(engine, "_admit", watched)
    return found
