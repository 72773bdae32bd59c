"""Records that survive a process that is killed at any moment."""

import json

import pytest

from langgraph_dynrag.evaluation.records import Records, key_of
from rag_backbone.errors import ConfigurationError


def test_a_half_written_line_is_ignored_and_does_not_swallow_the_next_one(tmp_path):
    path = tmp_path / "folder" / "r.jsonl"
    Records(path).put("a", {"x": 1}, {"f1": 0.5})
    whole = path.read_bytes()
    for cut in range(1, len(whole)):  # killed after any number of bytes of the second record
        path.write_bytes(whole + whole.replace(b'"a"', b'"b"')[:cut])
        again = Records(path)
        assert again.get("a") == {"f1": 0.5}
        assert again.get("b") is None or cut == len(whole) - 1  # only the end of the line is missing
        again.put("c", {}, {"f1": 1.0})
        assert Records(path).get("c") == {"f1": 1.0}
        assert Records(path).get("a") == {"f1": 0.5}


def test_several_writers_append_to_one_file(tmp_path):
    path = tmp_path / "r.jsonl"
    first, second = Records(path), Records(path)
    first.put("a", {}, {"text": "東京 \ud800"})
    second.put("b", {}, {"text": "x" * 100_000})
    found = Records(path)
    assert found.get("a") == {"text": "東京 \ud800"}
    assert found.get("b") == {"text": "x" * 100_000}
    assert all(json.loads(line)["key"] for line in path.read_text("utf-8").splitlines())


def test_records_in_memory_need_no_file():
    records = Records(None)
    records.put("a", {}, {"f1": 1.0})
    assert records.get("a") == {"f1": 1.0}


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_asked(tmp_path):
    with pytest.raises(ConfigurationError, match="the records .* cannot be read or written"):
        Records(tmp_path)


def test_a_key_depends_on_the_whole_description():
    about = {"method": "flare", "k": 3}
    assert key_of(about) == key_of(dict(reversed(about.items())))
    assert len({key_of(about), key_of({**about, "k": 4}), key_of({**about, "seed": 0})}) == 3
