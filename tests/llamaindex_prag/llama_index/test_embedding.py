"""Tests of the LlamaIndex embedding model: batches, async calls, serialisation, and search in an index."""

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import similarity
from llama_index.core.schema import TextNode

from langgraph_dynrag.retrieval import MiniLMEmbeddings
from llamaindex_prag.llama_index import MiniLMEmbedding

TEXTS = ["The ferry was built in 1954.", "A mason.", "Lichens grow slowly on granite, for centuries and more."]


@pytest.fixture(scope="module")
def embedding():
    return MiniLMEmbedding()


async def test_single_batched_and_async_embeddings_are_equal(embedding):
    alone = [embedding.get_text_embedding(text) for text in TEXTS]
    assert [len(vector) for vector in alone] == [384] * 3
    assert [similarity(v, v) for v in alone] == pytest.approx([1.0] * 3, abs=1e-5)
    for found in (embedding.get_text_embedding_batch(TEXTS), await embedding.aget_text_embedding_batch(TEXTS)):
        for a, b in zip(alone, found, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    assert await embedding.aget_query_embedding(TEXTS[0]) == pytest.approx(alone[0], abs=1e-5)
    assert MiniLMEmbeddings().embed_query(TEXTS[0]) == pytest.approx(alone[0], abs=1e-5)  # the LangChain class agrees


def test_an_index_finds_texts_by_meaning(embedding):
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=1).retrieve("When was the boat launched?")
    assert found[0].node.text == TEXTS[0]


def test_an_embedding_survives_a_round_trip_through_its_serialised_form(embedding):
    again = MiniLMEmbedding.from_dict(MiniLMEmbedding(device="cpu", embed_batch_size=5).to_dict())
    assert (again.class_name(), again.embed_batch_size, again.model_name) == ("MiniLMEmbedding", 5, "all-MiniLM-L6-v2")
    assert again.get_query_embedding("A mason.") == pytest.approx(embedding.get_query_embedding("A mason."), abs=1e-5)
