"""The manifest of an index: read, written, converted, and refused if it is damaged."""

import json

import pytest

from langgraph_dynrag.retrieval import LocalIndex
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings, make_index, texts


def test_an_index_of_format_1_is_read_and_converted(tmp_path, index, notes):
    path = index.folder / "manifest.json"
    current = json.loads(path.read_text())
    files = {}
    for key, entry in current["files"].items():
        root = entry.pop("root")
        splitter = entry.pop("splitter")
        files[f"{root}\0{key.removeprefix(root + '/')}"] = entry
    settings = {"splitter": splitter, "embeddings": current["embeddings"]}
    path.write_text(json.dumps({"version": 1, "settings": settings, "files": files}))
    old = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    assert len(texts(old)) == 2
    assert [s.name for s in old.sources()] == [str(notes)]
    report = old.ingest(notes, progress=False)
    assert (report.unchanged, report.embedded) == (2, 0)
    assert json.loads(path.read_text())["version"] == 2


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
