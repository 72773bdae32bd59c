"""The local index: incremental ingestion, recovery after a crash, and bad input."""

import json
import os
import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from pydantic import Field

from langgraph_dynrag.retrieval import LocalIndex, Splitter
from rag_backbone.errors import ConfigurationError, IndexFolderError


class CountedEmbeddings(DeterministicFakeEmbedding):
    """Arbitrary vectors; records the embedded texts, because these tests check which texts are embedded."""

    texts: list[str] = Field(default_factory=list)

    def embed_documents(self, texts):
        self.texts.extend(texts)
        return super().embed_documents(texts)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "notes"
    source.mkdir()
    (source / "bridge.md").write_text("# The bridge\n\nThe Cooper's Bridge was built by the mason Aldous Wray.")
    (source / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    lines = [
        {"title": "Wray", "text": "Aldous Wray was born in Hallin."},
        {"title": "Pike", "text": "Joan Pike sings."},
    ]
    (source / "people.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return source


def make_index(tmp_path, **options):
    return LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8), **options)


def texts(index, query="the", k=50):
    return {d.page_content for d in index.as_retriever("dense", k=k).invoke(query)}


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


def test_unchanged_files_are_not_opened(tmp_path, folder, monkeypatch):
    make_index(tmp_path).ingest(folder, progress=False)
    again = make_index(tmp_path)
    monkeypatch.setattr("langgraph_dynrag.retrieval.ingestion.sha256", lambda path: pytest.fail(f"read {path}"))
    report = again.ingest(folder, progress=False)
    assert (report.unchanged, report.embedded, report.chunks) == (3, 0, 4)
    assert again.embeddings.texts == []


def test_only_new_chunks_of_a_changed_file_are_embedded(tmp_path, folder):
    make_index(tmp_path).ingest(folder, progress=False)
    with (folder / "people.jsonl").open("a") as file:
        file.write('\n{"title": "Lund", "text": "Ida Lund keeps bees."}')
    index = make_index(tmp_path)
    report = index.ingest(folder, progress=False)
    assert (report.changed, report.unchanged, report.embedded, report.chunks) == (1, 2, 1, 5)
    assert index.embeddings.texts == ["Lund: Ida Lund keeps bees."]


def test_a_touched_file_is_not_embedded_again(tmp_path, folder):
    make_index(tmp_path).ingest(folder, progress=False)
    os.utime(folder / "river.txt", ns=(1, 1))
    report = make_index(tmp_path).ingest(folder, progress=False)
    assert (report.unchanged, report.embedded) == (3, 0)


def test_deleted_and_changed_content_is_no_longer_found(tmp_path, folder):
    make_index(tmp_path).ingest(folder, progress=False)
    (folder / "river.txt").unlink()
    (folder / "bridge.md").write_text("# The bridge\n\nIt fell down.")
    index = make_index(tmp_path)
    report = index.ingest(folder, progress=False)
    assert (report.removed, report.changed, report.chunks) == (1, 1, 3)
    assert not any("Tamsin" in t or "Cooper" in t for t in texts(index))
    assert not any("Tamsin" in d.page_content for d in index.as_retriever("bm25", k=9).invoke("river Tamsin"))


def test_a_text_shared_by_two_files_stays_until_both_are_deleted(tmp_path, folder):
    line = json.dumps({"text": "Shared.", "source": "elsewhere"})
    (folder / "a.jsonl").write_text(line)
    (folder / "b.jsonl").write_text(line)
    index = make_index(tmp_path)
    index.ingest(folder, progress=False)
    (folder / "a.jsonl").unlink()
    index.ingest(folder, progress=False)
    assert "Shared." in texts(index)
    (folder / "b.jsonl").unlink()
    index.ingest(folder, progress=False)
    assert "Shared." not in texts(index)


def test_one_index_can_hold_two_sources(tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    (other / "river.txt").write_text("Another river.")
    index = make_index(tmp_path)
    index.ingest(folder, progress=False)
    report = index.ingest(other, progress=False)
    assert (report.removed, report.chunks) == (0, 5)
    assert {"Another river.", "The river Tamsin crosses Brannoch."} <= texts(index)


def test_another_splitter_splits_the_files_of_a_source_again(tmp_path, folder):
    make_index(tmp_path).ingest(folder, progress=False)
    cut = make_index(tmp_path, splitter=Splitter(30, 0))
    report = cut.ingest(folder, progress=False)
    assert (report.added, report.changed) == (0, 3)
    assert report.chunks > 4
    assert report.chunks == len(texts(cut))
    assert not any(len(t) > 30 for t in texts(cut))


def test_other_embeddings_embed_every_source_again(tmp_path, folder, caplog):
    first = make_index(tmp_path)
    first.ingest(folder, progress=False)
    first.add_texts(["Ida Lund keeps bees."], [{"tags": ["bees"]}], source="crm")
    wide = LocalIndex(tmp_path / "index", embeddings=DeterministicFakeEmbedding(size=5))
    with pytest.raises(IndexFolderError, match="other embeddings"):
        texts(wide)
    assert "were computed with CountedEmbeddings" in caplog.text
    report = wide.ingest(folder, progress=False)
    assert (report.unchanged, report.embedded, report.chunks) == (3, 5, 5)
    assert len(texts(wide)) == 5
    bees = next(d for d in wide.as_retriever("bm25").invoke("bees"))
    assert bees.metadata["tags"] == ["bees"]


def test_a_broken_row_is_reported_on_every_run_until_it_is_fixed(tmp_path, folder, caplog):
    (folder / "z.jsonl").write_text('{"text": "fine"}\n{"text": \n\n{"text": "also fine"}')
    for run in ("first", "unchanged"):
        caplog.clear()
        report = make_index(tmp_path).ingest(folder, progress=False)
        assert report.chunks == 6, run
        [(name, reason)] = report.skipped
        assert name == "z.jsonl"
        assert reason.startswith("line 2 is not JSON"), run
        assert reason in str(report)
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        assert reason in caplog.text
    (folder / "z.jsonl").write_text('{"text": "fine"}')
    report = make_index(tmp_path).ingest(folder, progress=False)
    assert (report.unchanged, report.changed, report.chunks, report.skipped) == (3, 1, 5, ())


FORKED = """
import os, sys
from langgraph_dynrag.retrieval import LocalIndex, ingestion
from tests.langgraph_dynrag.retrieval.test_index import CountedEmbeddings
class Deadly(CountedEmbeddings):
    def embed_documents(self, texts):
        if any("Joan" in t for t in texts):
            os._exit(9)
        return super().embed_documents(texts)
def ingest(index, embeddings, save_every):
    if not (child := os.fork()):
        ingestion._SAVE_EVERY = save_every
        LocalIndex(index, embeddings=embeddings(size=8)).ingest(folder, progress=False)
        os._exit(0)
    return child
def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
how, folder, *indices = sys.argv[1:]
if how == "killed":
    print([ended(ingest(index, Deadly, every)) for index, every in zip(indices, (0.0, 1e9), strict=True)])
else:
    print([ended(child) for child in [ingest(*indices, CountedEmbeddings, ingestion._SAVE_EVERY) for _ in range(2)]])
"""


def forked(*arguments):
    """Return the exit codes of processes forked from one that has done the imports, which take longest."""
    done = subprocess.run([sys.executable, "-c", FORKED, *map(str, arguments)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_ingestion_is_completed_and_leaves_nothing_behind(tmp_path, folder):
    places = [tmp_path / "noted", tmp_path / "unnoted"]
    assert forked("killed", folder, *(place / "index" for place in places)) == [9, 9]
    (folder / "bridge.md").write_text("# The bridge\n\nIt fell down.")  # so no file contains its first chunk any longer
    for place in places:
        index = make_index(place)
        report = index.ingest(folder, progress=False)
        assert report.chunks == 4
        found = texts(index)
        assert len(found) == 4
        assert not any("Cooper" in t for t in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_index_concurrently_do_not_interfere(tmp_path, folder):
    assert forked("at once", folder, tmp_path / "index") == [0, 0]
    assert len(texts(make_index(tmp_path))) == 4


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1'])
def test_the_error_for_a_damaged_manifest_says_what_to_do(tmp_path, folder, content):
    index = make_index(tmp_path)
    index.ingest(folder, progress=False)
    (index.folder / "manifest.json").write_text(content)
    with pytest.raises(ConfigurationError, match="delete .* and index again"):
        index.as_retriever()


def test_the_error_for_another_version_names_it(tmp_path, folder):
    index = make_index(tmp_path)
    index.ingest(folder, progress=False)
    path = index.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(ConfigurationError, match="99"):
        len(index)


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


def test_a_splitter_with_too_large_an_overlap_is_refused():
    with pytest.raises(ConfigurationError, match="cannot overlap by 900"):
        Splitter(900, 900)
