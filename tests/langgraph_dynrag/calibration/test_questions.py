"""The questions of a calibration."""

import pytest

from langgraph_dynrag.calibration import CalibrationQuestion, read_questions
from langgraph_dynrag.calibration.questions import all_asked
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


def test_questions_may_be_strings_mappings_or_questions():
    made = CalibrationQuestion("One?", ("1",))
    assert CalibrationQuestion.of(made) is made
    assert CalibrationQuestion.of(" One? ") == CalibrationQuestion("One?")
    for answers in ({"answers": ["1", " "]}, {"answers": ("1",)}, {"answer": "1"}):
        assert CalibrationQuestion.of({"question": "One?", **answers}) == made
    assert CalibrationQuestion.of({"question": "br\ud800?"}).question == "br\ufffd?"


@pytest.mark.parametrize("value", ["", " ", 3, None, {}, {"question": ""}, {"question": 3}, ["One?"]])
def test_anything_else_is_no_question(value):
    with pytest.raises(ConfigurationError, match="^q.json, entry 2: .* is not a question"):
        CalibrationQuestion.of(value, "q.json, entry 2: ")


def test_at_least_two_questions_are_needed():
    with pytest.raises(ConfigurationError, match="there is 0 question"):
        all_asked([])
    with pytest.raises(ConfigurationError, match="there is 1 question"):
        all_asked(["One?"])
    assert len(all_asked(iter(["One?", {"question": "Two?"}]))) == 2


def test_only_line_breaks_separate_questions(tmp_path):
    (tmp_path / "q.txt").write_text("One\u2028and a half?\nTwo?\n", "utf-8")
    assert [q.question for q in read_questions(tmp_path / "q.txt")] == ["One\u2028and a half?", "Two?"]


def test_another_encoding_can_be_given(tmp_path):
    (tmp_path / "q.txt").write_bytes("Wer baute die Br\xfccke?".encode("cp1252"))
    assert read_questions(tmp_path / "q.txt", encoding="cp1252") == [CalibrationQuestion("Wer baute die Brücke?")]
