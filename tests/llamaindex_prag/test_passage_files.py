"""Files become passages: paragraphs joined up to a length, rows unchanged."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.passage_files import _PARAGRAPH_CHARACTERS as LIMIT
from llamaindex_prag.passage_files import _paragraphs, read_passages
from rag_backbone.documents import Findings
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


@pytest.mark.parametrize("blank", ["\n", "\n\n", "\n \n", "\n\n \t\n\n\n"])
def test_blank_paragraphs_leave_nothing_in_a_passage(blank, tmp_path):
    (tmp_path / "a.txt").write_text(f"{blank}A river.\n{blank}A town.{blank}")
    (passage,) = read_passages(tmp_path)
    assert passage.text == "A river.\n\nA town."


@given(st.lists(st.integers(0, 300).map(lambda n: "ab " * n), max_size=8))
def test_paragraphs_keep_every_word_and_are_joined_only_below_the_limit(paragraphs):
    text = "\n \n".join(paragraphs)
    joined = _paragraphs(text)
    assert " ".join(joined).split() == text.split()
    assert all(part == part.strip() != "" for part in joined)
    assert all(len(part) < LIMIT + len("\n\n") for part in joined)
    for one, other in pairwise(joined):
        assert len(one) + len(other.split("\n\n")[0]) >= LIMIT


def test_what_is_skipped_is_logged_and_collected(tmp_path, caplog):
    (tmp_path / "a.md").write_text("A river.")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / ".hidden.md").write_text("A secret.")
    findings = Findings()
    passages = read_passages(tmp_path, findings=findings)
    assert [(p.text, p.document) for p in passages] == [("A river.", f"{tmp_path}/a.md")]
    assert "not UTF-8" in dict(findings.skipped)["b.txt"]
    assert "b.txt" in caplog.text
    both = read_passages(tmp_path, encoding="cp1252", hidden=True, exclude="a.*")
    assert {p.text for p in both} == {"café", "A secret."}
