"""A traced `flare` run on the tiny model."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import BM25Retriever, Budgets, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.tracing import instrument, uninstrument
from rag_backbone import CausalLM
from tests.spans import Spans
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = "When was the Patient Anna built?"


def made_lm():
    """Return a tiny model whose window holds the worked examples of the presets."""
    return CausalLM(tiny_llama(max_position_embeddings=1 << 14), tiny_tokenizer(), name="tiny")


def flare_of(lm):
    """Return a graph that retrieves twice."""
    documents = [
        Document("The Patient Anna was built in 1974 at Lodmoor.", id="anna", metadata={"title": "Patient Anna"}),
        Document("Odile Marrash is the mayor of Tarn Ellis.", id="tarn", metadata={"title": "Tarn Ellis"}),
    ]
    return create_dynamic_rag(
        LocalChatModel.from_causal_lm(lm),
        BM25Retriever.from_documents(documents, k=2),
        preset="flare",
        k=1,
        budgets=Budgets(retrievals=2, tokens=12),
    )


@pytest.fixture(scope="session")
def long_lm():
    return made_lm()


@pytest.fixture
def flare(long_lm):
    return flare_of(long_lm)


@pytest.fixture
def spans():
    collected = Spans()
    yield collected
    uninstrument()


@pytest.fixture
def traced(spans):
    instrument(spans.provider)
    return spans
