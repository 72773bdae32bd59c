"""The manifest of an index: read, written, and refused if it is damaged."""

import json
import os
from itertools import pairwise

import pytest

from langgraph_dynrag.retrieval.manifest import Manifest, file_key, file_path, state_of, touch
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import make_index


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


def filled():
    return Manifest(
        "MiniLM",
        {
            "/notes/a.txt": {"root": "/notes", "chunks": ["2", "1", "2"]},
            "/notes/b.txt": {"root": "/notes", "chunks": []},
        },
        {"letter": {"source": "mail", "chunks": ["2"]}},
    )


def test_a_manifest_survives_a_round_trip_through_its_file(tmp_path):
    assert Manifest.read(tmp_path) == Manifest()  # there is none yet
    filled().write(tmp_path)
    assert Manifest.read(tmp_path) == filled()


def test_chunks_are_counted_once_for_each_file_and_document():
    assert filled().used() == {"1": 1, "2": 2}
    assert filled().chunk_ids() == ["1", "2"]


def test_every_change_is_visible_in_the_state_of_the_folder(tmp_path):
    assert state_of(tmp_path) is None
    filled().write(tmp_path)
    states = [state_of(tmp_path)]
    filled().write(tmp_path)  # the same content in another file
    states.append(state_of(tmp_path))
    os.utime(tmp_path / "manifest.json", ns=(1, 1))
    states.append(state_of(tmp_path))
    touch(tmp_path)
    states.append(state_of(tmp_path))
    assert None not in states
    assert all(a != b for a, b in pairwise(states))


def test_a_file_name_that_is_not_utf_8_has_a_printable_key_and_its_own_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"br\xfccke.txt")
    key = file_key(path)
    assert key.encode()
    assert file_path(key, {"bytes": os.fsencode(path).hex()}) == path
    assert file_path(str(tmp_path), {}) == tmp_path
