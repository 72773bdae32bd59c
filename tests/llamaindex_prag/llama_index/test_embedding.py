"""The embedding model in LlamaIndex: batches, async, serialisation, and an index that finds."""

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


async def test_one_by_one_in_batches_and_asynchronously_they_are_the_same(embedding):
    alone = [embedding.get_text_embedding(text) for text in TEXTS]
    assert [len(vector) for vector in alone] == [384] * 3
    assert [similarity(v, v) for v in alone] == pytest.approx([1.0] * 3, abs=1e-5)
    for found in (embedding.get_text_embedding_batch(TEXTS), await embedding.aget_text_embedding_batch(TEXTS)):
        for a, b in zip(alone, found, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    assert await embedding.aget_query_embedding(TEXTS[0]) == pytest.approx(alone[0], abs=1e-5)
    assert MiniLMEmbeddings().embed_query(TEXTS[0]) == pytest.approx(alone[0], abs=1e-5)  # what LangChain's gives


def test_an_index_finds_by_meaning(embedding):
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=1).retrieve("When was the boat launched?")
    assert found[0].node.text == TEXTS[0]


def test_it_is_written_and_read_as_other_components_are(embedding):
    again = MiniLMEmbedding.from_dict(MiniLMEmbedding(device="cpu", embed_batch_size=5).to_dict())
    assert (again.class_name(), again.embed_batch_size, again.model_name) == ("MiniLMEmbedding", 5, "all-MiniLM-L6-v2")
    assert again.get_query_embedding("A mason.") == pytest.approx(embedding.get_query_embedding("A mason."), abs=1e-5)
