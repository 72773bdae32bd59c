"""Chroma's files, shared by all users of an index: opened, written, cleared, and their errors explained."""

import pickle
from pathlib import Path

import pytest

from langgraph_dynrag.retrieval.chroma_folder import ChromaFolder, file_state, is_writable
from rag_backbone.errors import ConfigurationError, IndexFolderError


@pytest.fixture
def chroma(tmp_path):
    return ChromaFolder.of(tmp_path / "index", tmp_path / "index" / "version")


def put(collection):
    collection.upsert(ids=["a"], embeddings=[[1.0, 0.0]], documents=["text"], metadatas=[{"n": 1}])
    return "written"


def test_the_state_of_a_file_changes_with_its_content(tmp_path):
    file = tmp_path / "version"
    assert file_state(file) is None
    file.write_text("1")
    first = file_state(file)
    assert first == file_state(file)
    file.write_text("12")
    assert file_state(file) != first
    assert file_state(file / "below a file") is None


def test_a_folder_that_does_not_exist_is_writable_if_it_can_be_created(tmp_path):
    assert is_writable(tmp_path / "new" / "index")


def test_all_users_of_an_index_share_one_connection(tmp_path, chroma, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ChromaFolder.of(Path("index"), Path("index/version")) is chroma
    assert pickle.loads(pickle.dumps(chroma)) is chroma
    assert ChromaFolder.of(tmp_path / "other", tmp_path / "version") is not chroma


def test_what_was_written_is_read_until_it_is_cleared(chroma):
    assert not chroma.exists()
    with pytest.raises(IndexFolderError, match="holds no database"):
        chroma.read(lambda c: c.count())
    assert chroma.write(put) == "written"
    assert chroma.exists()
    assert chroma.read(lambda c: c.get()["documents"]) == ["text"]
    chroma.clear()
    assert not chroma.exists()
    chroma.clear()


def test_erasing_keeps_the_chunks_that_are_left(chroma):
    chroma.write(put)
    chroma.write(lambda c: c.upsert(ids=["b"], embeddings=[[0.0, 1.0]], documents=["secret"], metadatas=[{"n": 2}]))
    chroma.write(lambda c: c.delete(ids=["b"]))
    chroma.erase()
    kept = chroma.read(lambda c: c.get(include=["documents", "metadatas", "embeddings"]))
    assert (kept["ids"], kept["documents"], kept["metadatas"]) == (["a"], ["text"], [{"n": 1}])
    assert kept["embeddings"].tolist() == [[1.0, 0.0]]
    chroma.write(lambda c: c.delete(ids=["a"]))
    chroma.erase()
    assert not chroma.exists()


def test_errors_name_the_folder_and_say_what_to_do(chroma):
    chroma.write(put)

    def fails(error):
        def change(_):
            raise error

        return change

    for error, advice in (
        (RuntimeError("Collection expecting embedding with dimension of 2"), "index was built with other embeddings"),
        (RuntimeError("database or disk is full"), "free space on that disk"),
        (PermissionError("attempt to write a readonly database"), "give this user write permission"),
        (RuntimeError("malformed"), "if it is damaged, delete .*index and index again"),
    ):
        with pytest.raises(IndexFolderError, match=rf"chroma cannot be written: {error}; .*{advice}"):
            chroma.write(fails(error))
    with pytest.raises(ConfigurationError, match="as it is"):
        chroma.write(fails(ConfigurationError("as it is")))
    with pytest.raises(KeyboardInterrupt):
        chroma.write(fails(KeyboardInterrupt()))
    assert chroma.read(lambda c: c.count()) == 1
