"""Reading a file of any format: titles, sources, and the report of what could not be read."""

import json

import pytest

from rag_backbone.documents import Note, ReadDocument, Skipped, read_file
from tests.rag_backbone.documents.files import read, read_rows


def test_json_files_may_contain_a_list_a_row_or_lines(tmp_path):
    rows = [{"text": "one"}, "two", {"no": 1}]
    found = read_rows(tmp_path, json.dumps(rows, indent=1), name="a.json")
    assert [getattr(p, "text", p) for p in found[:2]] == ["one", "two"]
    assert found[2].reason.startswith("entry 3 has no text")
    assert [p.text for p in read_rows(tmp_path, {"text": "one"}, name="b.json")] == ["one"]
    assert [p.text for p in read_rows(tmp_path, {"text": "one"}, {"text": "two"}, name="c.json")] == ["one", "two"]
    [broken] = read_rows(tmp_path, '[{"text": ', name="d.json")
    assert broken.reason.startswith("is not JSON")


def test_thousands_of_broken_rows_are_counted_not_listed(tmp_path):
    pieces = read_rows(tmp_path, *["{"] * 1000, {"text": "fine"})
    assert len(pieces) == 52
    assert pieces[-1].reason == "and 950 more parts of this file"
    assert [p.text for p in pieces if isinstance(p, ReadDocument)] == ["fine"]


@pytest.mark.parametrize(
    ("name", "text", "title", "source"),
    [
        ("old_stone-bridge.txt", "words", "old stone bridge", "old_stone-bridge.txt"),
        ("a.md", "---\ntitle: T\nsource: https://a.example\n---\nwords", "T", "https://a.example"),
        ("a.csv", "file_name,url\nnotes.txt,https://a.example\n", "notes.txt", "https://a.example"),
        ("a.jsonl", '{"text": "words"}', "", "a.jsonl:1"),
        ("a.json", '[{"text": "words"}]', "", "a.json:1"),
        ("b.json", '{"text": "words"}', "", "b.json"),
    ],
)
def test_title_and_source_come_from_the_fields_or_else_from_the_file(tmp_path, name, text, title, source):
    (tmp_path / name).write_text(text)
    [found] = read(tmp_path / name)
    assert (found.title, found.source) == (title, source)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "", "empty"),
        ("a.txt", " \n\t\n", "holds no text"),
        ("a.csv", "only,a,header\n", "holds no text"),
        ("a.html", "<script>var x</script>", "holds no text"),
        ("a.json", "[]", "holds no text"),
    ],
)
def test_a_file_without_text_is_reported(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name) == [Skipped(name, reason)]


def test_an_unreadable_file_is_skipped_as_transient(tmp_path):
    assert read(tmp_path / "gone.txt") == [
        Skipped("gone.txt", "cannot be read: No such file or directory", transient=True)
    ]


def test_thousands_of_changes_are_counted_not_listed(tmp_path):
    pieces = read_rows(tmp_path, *[{"text": "one\0two"}] * 60)
    assert [p.text for p in pieces if isinstance(p, ReadDocument)] == ["onetwo"] * 60
    notes = [p for p in pieces if isinstance(p, Note)]
    assert notes[0] == Note("a.jsonl", "line 1: NUL characters, left out: 1")
    assert notes[50:] == [Note("a.jsonl", "and 10 more changes in this file")]


def test_a_file_name_with_invalid_bytes_is_printable_in_every_piece(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{\n')
    found, skipped = read_file(tmp_path / "a.jsonl", "b\udce9.jsonl")
    assert (found.source, skipped.name) == (r"b\xe9.jsonl:1", r"b\xe9.jsonl")


def test_line_ends_of_a_text_file_become_newlines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    [found] = read(tmp_path / "a.txt")
    assert found.text.splitlines() == ["one", "two", "three"]
    assert "\r" not in found.text
