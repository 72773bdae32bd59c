"""Notes about hand-made results."""

from langgraph_dynrag.evaluation.notes import notes_of
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from tests.langgraph_dynrag.evaluation.test_scores import FAILED, result


def notes(results, *, answers=("x",)):
    """Return the notes about the results of each method, without documents."""
    asked = [EvaluationQuestion(str(i), f"Who is {i}?", answers) for i in range(len(next(iter(results.values()))))]
    return notes_of(asked, (), (), results, 1)


def given_up():
    return result(0.0, given_up=True, found=1)


def test_what_one_search_answers_where_a_method_gave_up_is_told():
    single = [result(f1, found=1) for f1 in (0.2, 0.0, 1.0, 0.5)]
    own = [given_up(), given_up(), result(1.0, found=1), result(0.0, found=1)]
    assert notes({"single": single, "learned.json": own}, answers=())[-1] == (
        "`learned.json` gave up on 2 of 4 questions, which count as wrong. `single` has an F1 of 0.10 on these, and of "
        "0.75 on the others (`learned.json` 0.50)."
    )


def test_a_method_that_gave_up_everywhere_or_that_failed_otherwise_has_no_others():
    single = [result(0.2, found=1), result(0.0, found=1)]
    told = notes({"single": single, "learned.json": [given_up(), given_up()]}, answers=())[-1]
    assert told.endswith("`single` has an F1 of 0.10 on these.")
    told = notes({"learned.json": [given_up(), FAILED]}, answers=())[-1]
    assert told == "`learned.json` gave up on 1 of 2 questions, which count as wrong."


def test_without_answers_given_up_questions_are_counted_alone():
    single = [result(None, found=1), result(None, found=1)]
    told = notes({"single": single, "learned.json": [given_up() | {"f1": None}, result(None, found=1)]}, answers=())[-1]
    assert told == "`learned.json` gave up on 1 of 2 questions, which count as wrong."


def test_nothing_is_said_if_no_method_gave_up():
    assert not any("gave up" in note for note in notes({"single": [result(1.0, found=1)]}))
