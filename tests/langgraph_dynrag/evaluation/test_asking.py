"""Asking one question, and asking many."""

import threading

import pytest

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from langgraph_dynrag.evaluation.asking import Job, ask, recall, run
from langgraph_dynrag.evaluation.deadline import Deadline
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, Paragraph
from langgraph_dynrag.evaluation.records import Records
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

ASKED = EvaluationQuestion("1", "Who built the Cooper's Bridge?", ("Aldous Wray",), named=("bridge", "Nowhere"))
PLAIN = {"prompt": AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())}


def graph(*replies, **options):
    model = ScriptedChatModel(replies=[said(r) for r in replies])
    return create_dynamic_rag(model, WatchedRetriever(**options), preset="single", **PLAIN)


def test_answer_evidence_and_cost_of_one_question():
    found = ask(graph("It was Aldous Wray."), ASKED)
    assert (found["short_answer"], found["em"], found["contains"]) == ("It was Aldous Wray.", 0.0, 1.0)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["recall"] == 0.5  # of "bridge", an id, and "Nowhere"
    assert (found["retrievals"], found["generated_tokens"], found["failed_searches"]) == (1, 5, 0)
    assert found["answer_found"]
    assert found["queries"] == [ASKED.text]
    assert any("Cooper's Bridge" in text for text in found["contexts"])


def test_a_failed_search_is_recorded_and_without_answers_there_is_no_score():
    found = ask(graph("It was Wray.", give=OSError("gone")), EvaluationQuestion("1", "Who?"))
    assert (found["failed_searches"], found["search_error"]) == (1, "OSError: gone")
    assert (found["em"], found["f1"], found["contains"], found["recall"]) == (None,) * 4
    assert not found["answer_found"]


def test_an_answer_that_the_trigger_gives_up_is_recorded_as_given_up():
    always = LearnedModel("logistic", ("names",), (0,), (1,), 0, weights=(0,))  # p is 0.5
    about = {"preset": "flare", "initial_retrieval": True, **PLAIN}
    model = ScriptedChatModel(replies=[said("It was Aldous Wray.")])
    given_up = create_dynamic_rag(model, WatchedRetriever(), trigger=LearnedTrigger(always, 0.5, abstain=0.5), **about)
    found = ask(given_up, ASKED)
    assert (found["given_up"], found["short_answer"], found["em"]) == (True, "I do not know.", 0.0)
    assert not ask(graph("It was Aldous Wray."), ASKED)["given_up"]


def test_the_tokens_of_a_local_model_are_those_of_its_prompts(chat):
    local = create_dynamic_rag(chat, WatchedRetriever(), preset="no_retrieval", **PLAIN)
    found = ask(local, ASKED)
    prompt = len(chat.encode(PLAIN["prompt"].messages(ASKED.text, ())).ids)
    assert found["read_tokens"] == prompt
    assert found["generated_tokens"] > 0


@pytest.mark.parametrize(
    ("named", "share"),
    [("Bridge", 1), ("bridge.md", 1), ("/notes/bridge.md", 1), ("chunk-1", 1), ("The Bridge", 1), ("river", 0)],
)
def test_supporting_passages_are_known_by_id_title_source_or_file(named, share):
    document = {"id": "chunk-1", "title": "The bridge", "source": "/notes/bridge.md", "metadata": {}}
    assert recall(EvaluationQuestion("1", "?", named=(named,)), [document]) == share


def test_paragraphs_are_known_by_their_id_alone():
    wanted = (Paragraph("Bridge", "One.", True), Paragraph("Bridge", "Two.", True))
    document = {"id": wanted[0].id, "title": "Bridge", "source": "Bridge", "metadata": {}}
    assert recall(EvaluationQuestion("1", "?", (), wanted), [document]) == 0.5
    assert recall(EvaluationQuestion("1", "?"), [document]) is None


def jobs(count, build):
    return [Job({"i": i}, EvaluationQuestion(str(i), f"Q{i}?"), lambda i=i: build(i)) for i in range(count)]


def test_nothing_is_asked_twice(tmp_path):
    records, built = Records(tmp_path / "r.jsonl"), []

    def build(i):
        built.append(i)
        return graph("Yes.")

    assert run(jobs(3, build), records, Deadline(9), 2)
    assert run(jobs(5, build), Records(tmp_path / "r.jsonl"), Deadline(9), 2)
    assert sorted(built) == [0, 1, 2, 3, 4]


def test_no_question_is_begun_after_the_deadline():
    records, deadline = Records(None), Deadline(9)

    def build(i):
        if i == 2:
            deadline.stop()
        return graph("Yes.")

    assert not run(jobs(6, build), records, deadline, 1)
    assert [records.get(job.key) is not None for job in jobs(6, build)] == [True] * 3 + [False] * 3
    assert Deadline(-1).over


def test_an_error_ends_the_run_and_what_was_answered_is_kept():
    records, begun = Records(None), threading.Event()

    def build(i):
        if i == 1:
            begun.set()
            raise KeyboardInterrupt
        return graph("Yes.")

    with pytest.raises(KeyboardInterrupt):
        run(jobs(50, build), records, Deadline(9), 1)
    kept = [i for i, job in enumerate(jobs(50, build)) if records.get(job.key) is not None]
    assert kept[0] == 0
    assert len(kept) < 50
