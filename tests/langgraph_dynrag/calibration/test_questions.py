"""The questions of a calibration."""

import pytest

from langgraph_dynrag.calibration import CalibrationQuestion, read_questions
from rag_backbone.errors import ConfigurationError


def test_questions_are_read_from_files(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"question": "One?", "answers": ["1", "one"]}\n\n{"question": "Two?", "answer": "2"}\n'
    )
    (tmp_path / "b.json").write_text('["One?", {"question": "Two?"}]')
    (tmp_path / "c.txt").write_text("One?\n\n Two? \n")
    assert read_questions(tmp_path / "a.jsonl") == [
        CalibrationQuestion("One?", ("1", "one")),
        CalibrationQuestion("Two?", ("2",)),
    ]
    assert (
        read_questions(tmp_path / "b.json")
        == read_questions(tmp_path / "c.txt")
        == [CalibrationQuestion("One?"), CalibrationQuestion("Two?")]
    )
    for name, text, message in (
        ("d.jsonl", '{"question": "One?"}\n{"q', "d.jsonl, line 2 is not JSON"),
        ("e.jsonl", '{"q": "One?"}', "e.jsonl, line 1: .* is not a question"),
        ("f.json", '{"question": "One?"}', "holds a dict; a list of questions"),
        ("g.json", "[", "g.json is not valid JSON"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            read_questions(tmp_path / name)
    with pytest.raises(ConfigurationError, match="none.txt cannot be read"):
        read_questions(tmp_path / "none.txt")
