"""The BM25 index on disk: stored, loaded, rebuilt, and deleted with the content that it was built from."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import BM25Retriever, LocalIndex
from langgraph_dynrag.retrieval.bm25_folder import drop_old, load_or_build
from langgraph_dynrag.retrieval.manifest import Manifest
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings


def test_a_bm25_index_with_terms_of_another_version_is_rebuilt(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("他生于德国。", "utf-8")
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    index.ingest(tmp_path / "a.txt", progress=False)
    monkeypatch.setattr("langgraph_dynrag.retrieval.bm25_folder.TERMS_VERSION", 1)
    index.as_retriever("bm25").invoke("德国")
    old = {p.name for p in index.folder.glob("bm25-*")}
    assert old
    monkeypatch.undo()
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    assert [d.page_content for d in index.as_retriever("bm25").invoke("生于德国")] == ["他生于德国。"]
    assert old.isdisjoint(p.name for p in index.folder.glob("bm25-*"))


def manifest(**shas):
    return Manifest(documents={key: {"chunks": [key], "sha256": sha, "source": "s"} for key, sha in shas.items()})


def names(folder):
    return {p.name for p in folder.glob("*bm25-*")}


def test_a_stored_index_is_loaded_and_not_built_again(tmp_path, monkeypatch):
    documents = [Document("bees hum", id="a")]
    built = load_or_build(tmp_path, manifest(a="1"), documents)
    monkeypatch.setattr(BM25Retriever, "from_documents", lambda *_: pytest.fail("built again"))
    loaded = load_or_build(tmp_path, manifest(a="1"), documents)
    assert loaded.invoke("bees") == built.invoke("bees") != []


def test_a_changed_text_with_the_same_id_replaces_the_stored_index(tmp_path):
    load_or_build(tmp_path, manifest(a="1"), [Document("bees hum", id="a")])
    before = names(tmp_path)
    found = load_or_build(tmp_path, manifest(a="2"), [Document("ants march", id="a")])
    assert [d.page_content for d in found.invoke("ants")] == ["ants march"]
    assert len(names(tmp_path)) == len(before) == 1
    assert names(tmp_path) != before


def test_a_damaged_index_is_rebuilt(tmp_path):
    documents = [Document("bees hum", id="a")]
    load_or_build(tmp_path, manifest(a="1"), documents)
    [folder] = tmp_path.glob("bm25-*")
    for file in folder.iterdir():
        file.write_bytes(b"")
    assert load_or_build(tmp_path, manifest(a="1"), documents).invoke("bees")
    assert BM25Retriever.load(folder, documents).invoke("bees")


def test_documents_without_words_have_no_index(tmp_path, caplog):
    assert load_or_build(tmp_path, manifest(a="1"), [Document("...", id="a")]) is None
    assert "BM25 finds nothing" in caplog.text
    assert names(tmp_path) == set()


def test_indexes_of_earlier_contents_are_deleted(tmp_path):
    for name in ("bm25-old", ".bm25-building", "chroma"):
        (tmp_path / name).mkdir()
    load_or_build(tmp_path, manifest(a="1"), [Document("bees hum", id="a")])
    current = names(tmp_path)
    (tmp_path / "bm25-older").mkdir()
    drop_old(tmp_path, manifest(a="1"))
    assert names(tmp_path) == current
    assert len(current) == 1
    assert (tmp_path / "chroma").is_dir()
