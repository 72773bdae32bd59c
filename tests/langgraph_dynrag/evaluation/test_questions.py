"""Questions as they are passed in."""

import pytest

from langgraph_dynrag.calibration import CalibrationQuestion
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, Paragraph, corpus, distinct, sample
from rag_backbone.errors import ConfigurationError


def test_questions_may_be_strings_mappings_or_questions():
    made = EvaluationQuestion("One?", "One?", ("1",))
    assert EvaluationQuestion.of(made) is made
    assert EvaluationQuestion.of(CalibrationQuestion("One?", ("1",))) == made
    assert EvaluationQuestion.of({"question": " One? ", "answers": ["1", " "]}) == made
    assert EvaluationQuestion.of({"question": "One?", "supporting": "Bridge"}).supporting == {"Bridge"}
    with pytest.raises(ConfigurationError, match="^question 3: the question with id 'x' is empty"):
        EvaluationQuestion.of(EvaluationQuestion("x", " "), "question 3: ")


def test_duplicates_are_dropped_apart_from_case_and_white_space():
    asked = [EvaluationQuestion(str(i), text) for i, text in enumerate(["One?", "Two?", " one? ", "ONE?", "Tw o?"])]
    kept, dropped = distinct(asked)
    assert [q.id for q in kept] == ["0", "1", "4"]
    assert dropped == [" one? ", "ONE?"]


def test_a_sample_is_drawn_by_the_seed_and_keeps_the_order():
    asked = [EvaluationQuestion(str(i), f"Q{i}?") for i in range(30)]
    drawn = sample(asked, 10, 3)
    assert drawn == sample(asked, 10, 3)
    assert drawn != sample(asked, 10, 4)
    assert [int(q.id) for q in drawn] == sorted(int(q.id) for q in drawn)
    assert sample(asked, 30, 0) == asked


def test_a_paragraph_of_several_questions_occurs_once_in_the_corpus():
    shared = Paragraph("T", "Shared.", True)
    asked = [EvaluationQuestion(str(i), "?", (), (shared, Paragraph(f"T{i}", "Own.", False))) for i in range(3)]
    assert [d.page_content for d in corpus(asked)] == ["Shared.", "Own.", "Own.", "Own."]
    assert asked[0].supporting == {corpus(asked)[0].id}
