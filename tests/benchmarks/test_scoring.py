"""Scores worked out by hand, data files, and records that survive a crash."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import runs
from benchmarks.contract import finish
from benchmarks.datasets import corpus, load_questions, sample
from benchmarks.runs import Records
from rag_backbone.errors import ConfigurationError
from rag_backbone.metrics import exact_match, f1


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "score"),
    [
        ("the Patient Anna", ["Patient Anna"], 1, 1),
        ("Patient Anna!", ["patient  anna"], 1, 1),
        ("Anna", ["Patient Anna"], 0, 2 / 3),
        ("Patient Anna of Quillon", ["Patient Anna"], 0, 2 / 3),
        ("yes", ["no"], 0, 0),
        ("yes, it is", ["yes"], 0, 0),  # HotpotQA's rule: a yes that is only part of the answer scores nothing
        ("1954", ["1953", "1954"], 1, 1),
        ("", ["x"], 0, 0),
        ("x y x", ["x x"], 0, 0.8),
    ],
)
def test_scores_match_worked_examples(prediction, answers, em, score):
    assert exact_match(prediction, answers) == em
    assert f1(prediction, answers) == pytest.approx(score)


@given(st.text(), st.text())
def test_scores_are_symmetric_and_between_zero_and_one(a, b):
    assert 0 <= f1(a, [b]) <= 1
    assert f1(a, [b]) == pytest.approx(f1(b, [a]))
    assert exact_match(a, [b]) <= f1(a, [b]) or not a.strip()


@pytest.fixture
def hotpot(tmp_path):
    items = [
        {
            "_id": str(i),
            "question": f"Q{i}?",
            "answer": f"A{i}",
            "supporting_facts": [["T0", 0]],
            "context": [["T0", ["First. ", "Second."]], [f"T{i + 1}", ["Other."]]],
        }
        for i in range(5)
    ]
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps(items))
    return path


def test_questions_are_loaded_with_their_corpus(hotpot):
    questions = load_questions(hotpot)
    documents = corpus(questions)
    assert len(documents) == 6  # shared paragraphs occur once
    assert [d.page_content for d in documents if d.metadata["title"] == "T0"] == ["First. Second."]
    assert questions[0].supporting == {d.id for d in documents if d.metadata["title"] == "T0"}
    assert [q.id for q in sample(questions, 3, 0)] == [q.id for q in sample(questions, 3, 0)]
    assert len({q.id for q in sample(questions, 5, 1)}) == 5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"x": 1}]', "needed are JSON lines"),
        ('["One?"]', "has no paragraphs"),
        ("[]", "contains no questions"),
        (None, "there is no file of questions"),
    ],
)
def test_files_without_questions_are_refused(tmp_path, content, complaint):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=complaint) as failure:
        load_questions(path)
    assert str(path) in str(failure.value)


def test_records_survive_a_process_that_was_killed_during_a_write(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "records_folder", lambda: tmp_path)
    first = Records("r")
    first.put("a", {"x": 1}, {"f1": 0.5})
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"key": "b", "rec')
    again = Records("r")
    assert again.get("a") == {"f1": 0.5}
    assert again.get("b") is None


def test_results_are_written_as_json_without_nan(tmp_path, capsys):
    finish("name", {"seconds": float("nan"), "rows": [{"f1": 0.5}]}, tmp_path, "# Report")
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["seconds"] is None
    assert json.loads((tmp_path / "name.json").read_text())["rows"] == [{"f1": 0.5}]
    assert (tmp_path / "name.md").read_text().startswith("# Report")
