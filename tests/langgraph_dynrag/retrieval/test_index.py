"""The local index: incremental ingestion, recovery after a crash, and bad input."""

import pytest

from langgraph_dynrag.retrieval import LocalIndex, Splitter
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import make_index, texts


def test_results_have_title_source_and_score(tmp_path, folder):
    index = LocalIndex(tmp_path / "index")  # with the real embeddings
    report = index.ingest(folder, progress=False)
    assert (report.added, report.chunks, report.embedded) == (3, 4, 4)
    for kind in ("hybrid", "dense", "bm25"):
        first = index.as_retriever(kind, k=2).invoke("Who built the bridge?")[0]
        assert first.page_content.endswith("Aldous Wray."), kind
        assert first.metadata["title"] == "The bridge"
        assert first.metadata["source"] == "bridge.md"
        assert isinstance(first.metadata["score"], float)
    birthplace = index.as_retriever("hybrid", k=1).invoke("Where was Aldous Wray born?")[0]
    assert birthplace.metadata == {"title": "Wray", "source": "people.jsonl:1", "score": birthplace.metadata["score"]}


def test_deleted_and_changed_content_is_no_longer_found(tmp_path, folder):
    make_index(tmp_path).ingest(folder, progress=False)
    (folder / "river.txt").unlink()
    (folder / "bridge.md").write_text("# The bridge\n\nIt fell down.")
    index = make_index(tmp_path)
    report = index.ingest(folder, progress=False)
    assert (report.removed, report.changed, report.chunks) == (1, 1, 3)
    assert not any("Tamsin" in t or "Cooper" in t for t in texts(index))
    assert not any("Tamsin" in d.page_content for d in index.as_retriever("bm25", k=9).invoke("river Tamsin"))


def test_one_index_can_hold_two_sources(tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    (other / "river.txt").write_text("Another river.")
    index = make_index(tmp_path)
    index.ingest(folder, progress=False)
    report = index.ingest(other, progress=False)
    assert (report.removed, report.chunks) == (0, 5)
    assert {"Another river.", "The river Tamsin crosses Brannoch."} <= texts(index)


def test_empty_missing_and_unreadable_sources_are_refused(tmp_path):
    index = make_index(tmp_path)
    with pytest.raises(ConfigurationError, match="no file or folder"):
        index.ingest(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigurationError, match="no text to index"):
        index.ingest(empty)
    (empty / "blank.txt").write_text(" \n\n ")
    with pytest.raises(ConfigurationError, match="no text to index"):
        index.ingest(empty, progress=False)
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="is not a .txt"):
        index.ingest(tmp_path / "image.png")
    with pytest.raises(ConfigurationError, match="is empty; fill it first"):
        index.as_retriever()
    with pytest.raises(ConfigurationError, match="'sparse'; known: 'hybrid', 'dense', 'bm25'"):
        index.as_retriever("sparse")


def test_json_lines_without_text_are_reported_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n{"title": "no text"}')
    report = make_index(tmp_path).ingest(tmp_path / "a.jsonl", progress=False)
    [(name, reason)] = report.skipped
    assert (name, report.chunks) == ("a.jsonl", 1)
    assert reason.startswith("line 3 has no text; looked for the keys text, contents")


def test_links_that_point_outside_the_folder_are_not_followed(tmp_path, folder):
    secret = tmp_path / "secret.txt"
    secret.write_text("The password is mellon.")
    (folder / "link.txt").symlink_to(secret)
    index = make_index(tmp_path)
    report = index.ingest(folder, progress=False)
    assert (report.added, report.skipped) == (3, (("link.txt", "a link out of the folder"),))
    assert not any("mellon" in t for t in texts(index))


def test_binary_files_and_unknown_encodings_are_reported_instead_of_garbled(tmp_path, folder):
    (folder / "binary.txt").write_bytes(b"\x00\x01\x02")
    (folder / "latin.txt").write_bytes("Ein Fluß.".encode("latin-1"))
    (folder / "bom.txt").write_bytes("\ufeffשלום עולם".encode())
    index = make_index(tmp_path)
    report = index.ingest(folder, progress=False)
    assert report.added == 4
    assert dict(report.skipped).keys() == {"binary.txt", "latin.txt"}
    assert "encoding='cp1252'" in dict(report.skipped)["latin.txt"]
    assert "שלום עולם" in texts(index)
    assert not any("\ufffd" in text for text in texts(index))
    again = index.ingest(folder, encoding="cp1252", progress=False)
    assert (again.added, dict(again.skipped).keys()) == (1, {"binary.txt"})
    assert {"Ein Fluß.", "שלום עולם"} <= texts(index)


def test_a_text_of_megabytes_is_split_into_chunks(tmp_path):
    (tmp_path / "long.txt").write_text(" ".join(f"word{i}" for i in range(200_000)))
    index = make_index(tmp_path, splitter=Splitter(9000, 0))
    report = index.ingest(tmp_path / "long.txt", progress=False)
    assert report.chunks > 200
    assert max(len(t) for t in texts(index)) <= 9000
