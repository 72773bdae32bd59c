"""JSON lines end only at line feeds, in every reader; odd rows are distinguished from broken ones."""

import codecs
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.calibration.questions import read_questions
from llamaindex_prag.passage_files import read_passages
from llamaindex_prag.translator.training.corpus import read_lessons
from rag_backbone.documents import read_file, read_json_lines
from rag_backbone.documents.json_lines import rows
from rag_backbone.errors import ConfigurationError

ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, max_size=6), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.booleans())
def test_values_are_returned_with_their_line_numbers(tmp_path_factory, items, encoding, crlf):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    end = "\r\n" if crlf else "\n"
    path.write_bytes("".join(json.dumps(i, ensure_ascii=False) + end for i in items).encode(encoding))
    assert list(read_json_lines(path)) == list(enumerate(items, 1))


def sentence(name):
    return f"{name} one{ENDS}two."


def test_no_reader_splits_a_text_at_unicode_line_ends(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"title": "T", "text": sentence("Text"), "question": sentence("Question"), "answer": "x"}
    # json.dumps still escapes control characters; the others are written unescaped.
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    assert "\u2028" in path.read_text("utf-8")
    assert [p.text for p in read_file(path, "a.jsonl")] == [sentence("Text")]
    assert [p.text for p in read_passages(path)] == [sentence("Text")]
    assert [lesson.text for lesson in read_lessons(path)] == [sentence("Text")]
    assert [q.question for q in read_questions(path)] == [sentence("Question")]


def test_questions_are_split_only_at_line_feeds(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_bytes(codecs.BOM_UTF16_LE + "Who\u2028built it?\r\nWhen\x85?\n\n".encode("utf-16-le"))
    assert [q.question for q in read_questions(path)] == ["Who\u2028built it?", "When\x85?"]


def test_a_broken_line_is_reported_and_the_others_are_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n"caf\xe9"\n' + b"[" * 100_000 + b"\n" + b"1" * 5000 + b'\n{"a": 2}')
    found = list(rows(path))
    assert [(r.number, bool(r.error)) for r in found] == [
        (1, False),
        (3, True),
        (4, True),
        (5, True),
        (6, True),
        (7, False),
    ]
    assert "not UTF-8" in found[2].error
    with pytest.raises(ConfigurationError, match=r"a\.jsonl, line 3 is not JSON"):
        list(read_json_lines(path))


def test_a_duplicate_key_is_reported(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "text": "two", "n": 1}')
    assert list(read_json_lines(path)) == [(1, {"text": "two", "n": 1})]
    assert "the key 'text' occurs twice" in caplog.text


def test_lines_are_read_lazily(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 1000)
    with path.open("ab") as file:
        file.truncate(1 << 33)  # a sparse file that would exhaust the memory
    assert next(iter(rows(path))).value == {"text": "one"}
