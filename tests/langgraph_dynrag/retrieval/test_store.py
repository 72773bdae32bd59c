"""The chunks of an index by id: stored, replaced, deleted, and found by their vectors."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval.chroma_folder import ChromaFolder
from langgraph_dynrag.retrieval.store import ChunkStore
from rag_backbone.errors import IndexFolderError
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings


@pytest.fixture
def store(tmp_path):
    place = ChromaFolder.of(tmp_path / "index", tmp_path / "index" / "manifest.json")
    return ChunkStore(place, CountedEmbeddings(size=4))


def chunk(key, **metadata):
    return Document(f"text of {key}", id=key, metadata=metadata)


def test_an_empty_store_holds_nothing_and_creates_nothing(store, tmp_path):
    assert (store.ids(), store.count()) == (set(), 0)
    store.delete(["a"])
    assert store.nearest("?", 3, set) == []
    assert not (tmp_path / "index").exists()


def test_chunks_are_returned_in_the_order_asked_for_and_missing_ones_left_out(store):
    store.add([chunk("a", tags=["x"]), chunk("b"), chunk("c")])
    assert (store.ids(), store.count()) == ({"a", "b", "c"}, 3)
    found = store.documents(["c", "none", "a"])
    assert found == [chunk("c"), chunk("a", tags=["x"])]


def test_a_replaced_chunk_keeps_nothing_of_the_old_one(store):
    store.add([chunk("a", title="Old", page=1)])
    store.add([Document("new text", id="a", metadata={"page": 2})])
    assert store.documents(["a"]) == [Document("new text", id="a", metadata={"page": 2})]
    assert store.count() == 1


def test_deleted_chunks_are_gone_and_unknown_ids_ignored(store):
    store.add([chunk("a"), chunk("b")])
    store.delete(["a", "unknown"])
    assert store.ids() == {"b"}
    store.clear()
    assert store.count() == 0


def test_the_title_is_embedded_but_not_stored(store):
    store.add([chunk("a", title="Bridge")])
    assert store._embeddings.texts == ["Bridge: text of a"]
    assert store.documents(["a"])[0].page_content == "text of a"


def test_only_chunks_that_the_manifest_names_are_found(store):
    store.add([chunk(key) for key in "abcdef"])
    found = store.nearest("text of e", 2, lambda: {"b", "e"})
    assert {d.id for d, _ in found} == {"b", "e"}
    assert (found[0][0].id, found[0][1]) == ("e", pytest.approx(0, abs=1e-5))
    assert found[1][1] > 1e-3
    assert [d.id for d, _ in store.nearest("text of a", 1, lambda: {"d"})] == ["d"]


def test_vectors_that_are_missing_are_an_error(store):
    store.add([chunk("a")])
    with pytest.raises(IndexFolderError, match="1 of the 2 vectors in .* are missing; delete it and index again"):
        store.nearest("text of a", 5, lambda: {"a", "lost"})
