"""The BM25 index on disk: stored, loaded, rebuilt, and deleted with the content that it was built from."""

from langgraph_dynrag.retrieval import LocalIndex
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
