"""Evaluations: worked out by hand with a scripted model, and with a real, tiny one."""

import asyncio
import json
import re

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import AnswerPrompt, BM25Retriever, Budgets, aevaluate, evaluate
from langgraph_dynrag.evaluation.deadline import Deadline
from rag_backbone.errors import ConfigurationError, ServerUnavailableError
from tests.langgraph_dynrag.calibration.bridges import PLAIN, Bridges
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever

ONE = {k: v for k, v in PLAIN.items() if k != "query"} | {"concurrency": 1, "long_context": 0}
SHORT = {
    "prompt": AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=()),
    "budgets": Budgets(tokens=8),
    "lookahead": 8,
}
BRIDGES = [{"question": f"Who built bridge {i}?", "answers": ["It was Wray"], "supporting": ["f"]} for i in range(20)]
REAL = [{"question": f"Who built bridge {i}?", "answers": ["Aldous Wray"], "supporting": ["Bridge"]} for i in range(3)]


def bridges():
    """Return a model that is unsure of 12 bridges of 20, of 8 of them below 0.7, and a retriever of the fact."""
    return Bridges(doubts=[0.2, 0.4, 0.6, 0.8, 1.0] * 4), WatchedRetriever(give=[Document("Fact.", id="f")])


def plain(evaluation):
    """Return the table without what time decides."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in evaluation.to_dict()["rows"]]


def test_worked_example():
    """At 0.7 FLARE searches for the bridges of which the model is less sure: 12 of 20; it is then wrong about 4."""
    model, retriever = bridges()
    found = evaluate(model, retriever, BRIDGES, presets=["flare@0.7"], **ONE)
    table = {r.method: (r.em.value, r.searches.value, r.recall.value) for r in found.rows}
    assert table == {"no_retrieval": (0.2, 0.0, 0.0), "single": (1.0, 1.0, 1.0), "flare@0.7": (0.8, 0.6, 0.6)}
    flare = next(d for d in found.differences if d.method == "flare@0.7")
    assert flare.f1.value == pytest.approx(4 * (2 / 3 - 1) / 20)
    assert (flare.differing, flare.same_answers) == (4, 16)
    assert flare.searches.value == pytest.approx(-0.4)
    text = "\n".join(found.verdict)
    assert "Searching once before the answer raises F1 over answering without documents: +0.27" in text
    assert "No method differs in F1 from one search by more than these 20 questions can show." in text
    assert "same short answer as one search in 16 of 20 questions, with 0.6 searches instead of 1.0" in text
    assert found.complete
    assert found.row("single").first_failure is None


def test_the_same_questions_give_the_same_table_and_nothing_is_asked_twice(chat, tmp_path):
    records = tmp_path / "r.jsonl"
    retriever = BM25Retriever.from_documents(DOCUMENTS)
    options = {"presets": ["dragin", "fixed_sentence"], **SHORT}
    first = evaluate(chat, retriever, REAL, records=records, **options)
    lines = records.read_text("utf-8").splitlines()
    assert len(lines) == 3 * 5
    assert plain(evaluate(chat, retriever, REAL, records=records, **options)) == plain(first)
    assert records.read_text("utf-8").splitlines() == lines
    assert plain(evaluate(chat, retriever, REAL, concurrency=2, **options)) == plain(first)


def test_an_interrupted_run_is_resumed_and_repeats_nothing(chat, tmp_path):
    """The process is killed after some records, in the middle of a line."""
    records, retriever = tmp_path / "r.jsonl", WatchedRetriever()
    options = {"presets": ["fixed_sentence"], "records": records, **SHORT}
    whole = evaluate(chat, retriever, REAL, **options)
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:7]) + lines[7][:50])
    assert plain(evaluate(chat, retriever, REAL, **options)) == plain(whole)
    resumed = records.read_bytes().splitlines()
    assert resumed[:7] == [line.rstrip() for line in lines[:7]]
    added = [json.loads(line)["key"] for line in resumed[8:]]
    assert sorted(added) == sorted(json.loads(line)["key"] for line in lines[7:])


def test_when_the_time_is_up_the_methods_are_compared_on_the_same_questions(tmp_path):
    model, _ = bridges()
    deadline = Deadline(60)

    def give(query):
        if "bridge 4" in query:
            deadline.stop()
        return [Document("Fact.", id="f")]

    options = {"presets": ["fixed_sentence"], "records": tmp_path / "r.jsonl", **ONE}
    found = evaluate(model, WatchedRetriever(give=give), BRIDGES, minutes=deadline, **options)
    assert not found.complete
    assert {r.questions for r in found.rows} == {4}
    assert "Stopped before the end: all of this is about the 4 questions that were finished." in found.verdict
    assert "4 of 20 questions" in repr(found)
    again = evaluate(model, WatchedRetriever(give=[Document("Fact.", id="f")]), BRIDGES, **options)
    assert again.complete
    assert len(again.asked) == 20


def test_nothing_is_lost_if_the_time_is_up_at_once(chat):
    found = evaluate(chat, WatchedRetriever(), REAL, minutes=1e-9, **SHORT)
    assert found.asked == ()
    assert "nothing to compare" in found.verdict[0]
    json.dumps(found.to_dict(), allow_nan=False)
    assert found._repr_html_().startswith("<article")


def test_searches_that_fail_are_counted_with_the_first_message():
    model, _ = bridges()

    def give(query):
        return OSError("the index is offline") if "bridge 3" in query else [Document("Fact.", id="f")]

    found = evaluate(model, WatchedRetriever(give=give), BRIDGES[:12], presets=[], **ONE)
    assert found.row("single").failures == 1
    assert "OSError: the index is offline" in found.row("single").first_failure
    assert found.row("no_retrieval").failures == 0
    assert "single: 1 failed, the first: a search failed: OSError" in str(found)


def test_questions_that_fail_are_wrong_and_asked_again_by_the_next_run(tmp_path):
    model, _ = bridges()
    broken = WatchedRetriever(give=lambda _: TypeError("no such field"))
    options = {"presets": [], "records": tmp_path / "r.jsonl", **ONE}
    found = evaluate(model, broken, BRIDGES[:12], **options)
    assert (found.row("single").failures, found.row("single").em.value) == (12, 0.0)
    assert "TypeError: no such field" in found.row("single").first_failure
    assert found.row("single").searches is None
    assert found.row("no_retrieval").failures == 0
    again = evaluate(model, WatchedRetriever(give=[Document("Fact.", id="f")]), BRIDGES[:12], **options)
    assert (again.row("single").failures, again.row("single").em.value) == (0, 1.0)


class Down(Bridges):
    """A model whose server goes down after its first answers."""

    left: int = 5

    def _next(self, messages, kwargs):
        if messages[-1].content != "Say yes.":
            self.left -= 1
            if self.left < 0:
                raise ServerUnavailableError("429: too many requests")
        return super()._next(messages, kwargs)


def test_a_server_that_is_down_ends_the_run_and_keeps_what_it_answered(tmp_path):
    records = tmp_path / "r.jsonl"
    options = {"presets": [], "records": records, **ONE}
    _, retriever = bridges()
    with pytest.raises(ServerUnavailableError, match="429"):
        evaluate(Down(doubts=[1.0] * 20), retriever, BRIDGES, **options)
    assert len(records.read_text().splitlines()) == 5


def test_questions_without_answers_are_compared_by_cost_alone():
    model, retriever = bridges()
    found = evaluate(model, retriever, [q["question"] for q in BRIDGES[:12]], presets=[], **ONE)
    assert {(r.em, r.f1, r.contains) for r in found.rows} == {(None, None, None)}
    assert "only cost and searches are compared" in found.verdict[0]
    assert "F1" not in str(found)


def test_questions_without_answers_beside_others_are_left_out_of_the_scores():
    model, retriever = bridges()
    asked = [
        *BRIDGES[:10],
        {"question": "Who built bridge 10?"},
        {"question": "Who built bridge 11?", "answers": [" "]},
    ]
    found = evaluate(model, retriever, asked, presets=[], **ONE)
    assert (found.row("single").questions, found.row("single").scored, found.row("single").em.value) == (12, 10, 1.0)
    assert "2 of 12 questions have no answers; scores leave them out." in found.notes


def test_fewer_than_ten_questions_are_called_too_few_whatever_they_show():
    model, retriever = bridges()
    few = evaluate(model, retriever, BRIDGES[:9], presets=["fixed_sentence"], **ONE)
    assert any("9 questions with answers are too few" in line for line in few.verdict)
    assert not any("raises F1" in line for line in few.verdict)
    enough = evaluate(model, retriever, BRIDGES, presets=["fixed_sentence"], **ONE)
    assert not any("too few" in line for line in enough.verdict)


def test_a_retriever_that_fails_on_some_questions_is_compared_on_all(chat):
    """A real model and index; one question in three ends in an error of the retriever."""
    real = BM25Retriever.from_documents(DOCUMENTS)
    broken = WatchedRetriever(give=lambda q: TimeoutError("the index is slow") if "bridge 1" in q else real.invoke(q))
    found = evaluate(chat, broken, REAL, presets=["fixed_sentence"], **SHORT)
    assert {row.questions for row in found.rows} == {3}
    assert found.row("no_retrieval").failures == 0
    for method in ("single", "long_context", "fixed_sentence"):
        assert found.row(method).failures == 1
        assert found.row(method).first_failure == "a search failed: TimeoutError: the index is slow"
    assert "single failed in 1 question" in re.sub("<[^>]+>", "", found._repr_html_())


def test_answers_that_no_document_contains_are_counted():
    model, retriever = bridges()
    asked = [*BRIDGES[:9], {"question": "Who built bridge 10?", "answers": ["yes"]}]
    found = evaluate(model, retriever, asked, presets=[], **ONE)
    assert any("The answers of 9 of 10 questions occur in no passage that any method found" in n for n in found.notes)


def test_the_documents_of_an_index_are_searched_for_the_answers(chat):
    asked = [*REAL, {"question": "Who sank?", "answers": ["Nobody at all"]}]
    found = evaluate(chat, BM25Retriever.from_documents(DOCUMENTS), asked, presets=[], **SHORT)
    assert any("The answers of 1 of 4 questions occur in no document" in n and "Who sank?" in n for n in found.notes)


def test_duplicates_are_dropped_with_a_note_and_empty_questions_are_refused():
    model, retriever = bridges()
    found = evaluate(model, retriever, [*BRIDGES[:3], {"question": "who built  BRIDGE 1?"}], presets=[], **ONE)
    assert found.questions == 3
    assert any(n.startswith("1 question asked the same as an earlier one and was dropped") for n in found.notes)
    with pytest.raises(ConfigurationError, match="^question 2: .* is not a question"):
        evaluate(model, retriever, [BRIDGES[0], " "], **ONE)


def test_paragraphs_of_the_questions_are_the_corpus_if_there_is_no_retriever(chat, tmp_path):
    entries = [
        {
            "_id": str(i),
            "question": f"Who built bridge {i}?",
            "answer": "Wray",
            "supporting_facts": [[f"Bridge {i}", 0]],
            "context": [[f"Bridge {i}", [f"Bridge {i} was built by Wray."]], ["River", ["The Tamsin."]]],
        }
        for i in range(4)
    ]
    path = tmp_path / "q.json"
    path.write_text(json.dumps(entries))
    found = evaluate(chat, None, path, presets=[], limit=3, k=1, **SHORT)
    assert found.questions == 3
    assert found.row("long_context").recall.value == 1.0
    assert found.row("single").recall.value == 1.0  # of the corpus of all four, the right one
    with pytest.raises(ConfigurationError, match="comes without paragraphs; pass a retriever"):
        evaluate(chat, None, BRIDGES, **SHORT)


def test_a_preset_that_the_model_cannot_run_has_a_row_with_the_reason():
    model, retriever = bridges()
    found = evaluate(model, retriever, BRIDGES[:3], presets=["dragin"], **ONE)
    assert "attention" in found.row("dragin").problem
    assert found.row("single").questions == 3
    assert "dragin: not run, " in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0; a whole number of at least 1"),
        ({"limit": 0}, "limit is 0"),
        ({"long_context": -1}, "long_context is -1"),
        ({"minutes": 0}, "minutes is 0; a number above 0"),
        ({"trigger": None}, "trigger belongs to one method"),
        ({"nonsense": 1}, "nonsense"),
        ({"judge": "qa"}, "judge is 'qa'; a callable"),
        ({"presets": ["nothing"]}, "there is no preset 'nothing'"),
        ({"questions": []}, "there are no questions"),
        ({"questions": {"question": "One?"}}, "questions is one mapping; a list"),
        ({"questions": "none.jsonl"}, "there is no file of questions none.jsonl"),
        ({"retriever": [Document("x")]}, "BM25Retriever.from_documents"),
    ],
)
def test_mistakes_are_explained_before_anything_is_asked(options, message):
    model, retriever = bridges()
    given = {"retriever": retriever, "questions": BRIDGES, **options}
    with pytest.raises(ConfigurationError, match=message):
        evaluate(model, **given)
    assert model.calls == []


class Length:
    """A judge that prefers long answers, and refuses those that hold a number."""

    name = "length counted"

    def __init__(self):
        self.seen = []

    def __call__(self, question, answer, reference, contexts):
        self.seen.append((question, answer, reference, tuple(contexts)))
        if "Pike" in answer:
            raise ValueError("not this one")
        return float(len(answer))


def test_a_judge_scores_answers_once_and_is_named_in_the_report(tmp_path):
    model, retriever = bridges()
    judge, options = Length(), {"presets": [], "records": tmp_path / "r.jsonl", **ONE}
    found = evaluate(model, retriever, BRIDGES[:5], judge=judge, **options)
    assert found.row("single").judged.value == len("It was Wray.")
    assert (BRIDGES[0]["question"], "It was Wray.", "It was Wray", ("Fact.",)) in judge.seen
    assert found.judge == "length counted"
    assert any(
        "The judge gave no score for 4 answers; the first failure: ValueError: not this one" in n for n in found.notes
    )
    again = Length()
    evaluate(model, retriever, BRIDGES[:5], judge=again, **options)
    assert {answer for _, answer, _, _ in again.seen} == {"It was Pike."}  # only those without a score


def test_a_judge_that_needs_answers_is_refused_before_anything_is_asked():
    model, retriever = bridges()
    judge = Length()
    judge.needs = ["reference"]
    with pytest.raises(ConfigurationError, match="length counted compares with a correct answer, and none of the 2"):
        evaluate(model, retriever, [q["question"] for q in BRIDGES[:2]], judge=judge, presets=[], **ONE)
    assert model.calls == []


async def test_aevaluate_gives_the_same(chat):
    retriever = BM25Retriever.from_documents(DOCUMENTS)
    expected = evaluate(chat, retriever, REAL, presets=["fixed_sentence"], **SHORT)
    assert plain(await aevaluate(chat, retriever, REAL, presets=["fixed_sentence"], **SHORT)) == plain(expected)


async def test_an_awaited_evaluation_that_is_cancelled_asks_no_further_question():
    model, _ = bridges()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def give(_):
        loop.call_soon_threadsafe(begun.set)
        return [Document("Fact.", id="f")]

    task = asyncio.create_task(aevaluate(model, WatchedRetriever(give=give, delay=0.05), BRIDGES, presets=[], **ONE))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.3)
    asked = len(model.calls)
    await asyncio.sleep(0.3)
    assert len(model.calls) == asked < 40
