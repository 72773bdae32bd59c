"""One change to an index: what is read and embedded, what is removed, and what a killed change leaves behind."""

import json
import os
import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langgraph_dynrag.retrieval import LocalIndex, Splitter
from rag_backbone.errors import IndexFolderError
from tests.langgraph_dynrag.retrieval.indexes import make_index, texts


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
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings
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
