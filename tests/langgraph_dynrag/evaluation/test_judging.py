"""Scores that are given, refused, or impossible, and what the notes say about them."""

import pytest

from langgraph_dynrag.evaluation.asking import Job
from langgraph_dynrag.evaluation.deadline import Deadline
from langgraph_dynrag.evaluation.judging import judge_answers
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from langgraph_dynrag.evaluation.records import Records


class Scores:
    """A judge that takes its scores from the answers, which are numbers."""

    name = "scores"
    needs = ()

    def __init__(self, *needs):
        self.needs = needs
        self.seen = []

    def __call__(self, question, answer, reference, contexts):
        self.seen.append(answer)
        return float(answer)


def answered(records, *answers, correct=("x",), contexts=("A passage.",)):
    """Return one job for each answer, with its record."""
    jobs = []
    for answer in answers:
        about = {"answer": answer, "correct": correct, "contexts": contexts}
        job = Job(about, EvaluationQuestion(answer, f"Is it {answer}?", correct), lambda: None)
        records.put(job.key, job.about, {"answer": answer, "contexts": list(contexts)})
        jobs.append(job)
    return jobs


@pytest.mark.parametrize("bad", ["nan", "inf", "none at all"])
def test_what_is_no_finite_number_is_a_failure_and_is_asked_again(tmp_path, bad):
    records, judge = Records(tmp_path / "r.jsonl"), Scores()
    asked = {"single": answered(records, "1", bad)}
    found, notes = judge_answers(judge, asked, records, Deadline(9), 1)
    assert found == {"single": [1.0, None]}
    assert len(notes) == 1
    assert notes[0].startswith("The judge gave no score for 1 answers; the first failure: ValueError: ")
    again = Scores()
    judge_answers(again, asked, Records(tmp_path / "r.jsonl"), Deadline(9), 1)
    assert again.seen == [bad]


def test_a_judge_is_not_asked_about_answers_that_lack_what_it_needs():
    records = Records(None)
    asked = {
        "no_retrieval": answered(records, "1", "2", contexts=()),
        "single": [*answered(records, "3"), *answered(records, "4", correct=())],
    }
    judge = Scores("reference", "contexts")
    found, notes = judge_answers(judge, asked, records, Deadline(9), 2)
    assert found == {"no_retrieval": [None, None], "single": [3.0, None]}
    assert judge.seen == ["3"]
    assert notes == [
        "The judge was not asked about 2 answers, because no passage was found.",
        "The judge was not asked about 1 answers, because no correct answer is known.",
    ]
    undemanding, _ = judge_answers(Scores(), asked, Records(None), Deadline(9), 2)
    assert undemanding == {"no_retrieval": [None, None], "single": [None, None]}  # there are no answers
    assert judge_answers(Scores(), asked, records, Deadline(9), 2)[1] == []
