"""Files become passages: paragraphs joined up to a length, rows unchanged."""

import pytest

from llamaindex_prag.passage_files import read_passages
from rag_backbone.errors import ConfigurationError


def test_paragraphs_are_joined_and_json_lines_stay_separate(tmp_path):
    (tmp_path / "a.md").write_text("\n\n".join(["word " * 100] * 5))
    (tmp_path / "b.jsonl").write_text('{"id": "x", "title": "T", "text": "one"}\n\n{"text": "two"}')
    passages = read_passages(tmp_path)
    assert [p.document for p in passages] == [
        *[f"{tmp_path}/a.md"] * 3,
        f"{tmp_path}/b.jsonl#x",
        f"{tmp_path}/b.jsonl#3",
    ]
    assert passages[3].title == "T"
    assert all(len(p.text) < 1200 for p in passages)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", "x", "is not a .txt"),
        ("a.pdf", "x", "PDF cannot be read"),
        ("a.txt", " ", "holds no text"),
        ("a.jsonl", '{"title": "y"}', "line 1 has no text"),
        ("a.jsonl", "[", "line 1 is not JSON"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        read_passages(tmp_path / name)
