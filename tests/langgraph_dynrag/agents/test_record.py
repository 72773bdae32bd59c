"""The record of the question that an agent is answering."""

import copy
import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.record import accepted, degraded, discarded, drafted, is_about, kept, record_of, told
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.queries import Question
from langgraph_dynrag.triggers import RIND, TokenProbability
from rag_backbone.errors import SignalUnavailableError
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE, AgentModel
from tests.langgraph_dynrag.agents.watched import agent_of
from tests.langgraph_dynrag.scripted import WatchedRetriever


@pytest.mark.parametrize("trigger", [TokenProbability(), RIND(0.1)])
async def test_missing_signals_can_be_an_error(run, trigger):
    query = Question()
    model = AgentModel(replies=[UNSURE], reports=False)
    agent, _, _ = agent_of(model=model, trigger=trigger, query=query, on_missing_signals="raise")
    with pytest.raises(SignalUnavailableError, match=r"AgentModel (reported no logprob|cannot give attention)"):
        await run(agent)


async def test_another_question_on_the_same_thread_starts_a_new_record(run):
    agent, model, retriever = agent_of(UNSURE, SURE, SURE, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    await run(agent, config=config)
    result = await run(agent, {"messages": [HumanMessage("And who paid?")]}, config=config)
    record = result["dynamic_retrieval"]
    assert (record["question"], record["retrievals"], record["evidence"]) == ("And who paid?", 0, [])
    assert "Aldous Wray was born" not in model.calls[2][-1].content
    assert len(result["messages"]) == 4
    assert len(retriever.queries) == 1


async def test_the_record_is_plain_data(run):
    agent, _, _ = agent_of(UNSURE, SURE, checkpointer=InMemorySaver())
    result = await run(agent, config={"configurable": {"thread_id": "1"}})
    assert json.loads(json.dumps(result["dynamic_retrieval"])) == result["dynamic_retrieval"]


def question(text="Who built it?", id_="1"):
    return HumanMessage(text, id=id_)


def written(text="It was Joan."):
    return DraftResult(Draft((text,), (-0.1,), ended="end"))


def test_a_record_belongs_to_one_message_with_one_text():
    record = record_of(question(), None)
    assert is_about(record, question(" Who built it? "))
    assert not is_about(record, question(id_="2"))
    assert not is_about(record, question("Who paid?"))
    assert record["trace"] == [{"type": "question", "question": "Who built it?"}]


def test_the_record_of_the_same_question_is_continued_and_of_another_one_begun():
    known = {**record_of(question(), None), "retrievals": 2}
    same = record_of(question(), known)
    assert same == known
    assert same is not known
    assert record_of(question("Who paid?"), known)["retrievals"] == 0


def test_records_are_replaced_and_never_changed():
    record = record_of(question(), None)
    before = copy.deepcopy(record)
    later = told(record, {"type": "budget", "which": "searches", "limit": 1})
    later = drafted(later, written(), ["p1"], Usage(1, 0, None))
    later = discarded(later, written())
    later = accepted(later, AIMessage("It was Joan. "), written())
    assert record == before
    assert [e["type"] for e in later["trace"]] == [
        "question",
        "budget",
        "draft",
        "resume",
        "accepted",
        "answer",
    ]
    assert later["trace"][2]["shortened_or_left_out"] == ["p1"]
    assert later["trace"][2]["usage"] == {"calls": 1, "reported": 0, "tokens": None}
    assert (later["rounds"], later["answer"], later["short_answer"]) == (1, "It was Joan.", "It was Joan.")


def test_the_problem_of_an_empty_answer_is_recorded_and_logged(caplog):
    record = drafted(record_of(question(), None), DraftResult(Draft(), problem="no text"), [], Usage())
    assert record["trace"][-1]["problem"] == "no text"
    assert "an answer has no text (no text)" in caplog.text


def test_a_warning_reaches_the_log_and_the_warnings_of_the_answer(caplog):
    record = kept(record_of(question(), None), "the limit was reached", "it was not rewritten")
    record = accepted(record, AIMessage("It was Joan."), written())
    assert record["warnings"] == ["it was not rewritten"]
    assert "it was not rewritten" in caplog.text
    silent = kept(record_of(question(), None), "the passages were refused")
    assert silent["trace"][-1] == {"type": "kept", "reason": "the passages were refused"}


def test_an_unwatched_answer_is_recorded_or_an_error(caplog):
    record = record_of(question(), None)
    watched = degraded(WatchOptions(retriever=WatchedRetriever()), record, "the model reported nothing")
    assert (watched["blind"], watched["trace"][-1]["type"]) == (False, "degraded")
    assert "an answer was not watched: the model reported nothing" in caplog.text
    strict = WatchOptions(retriever=WatchedRetriever(), on_missing_signals="raise")
    assert degraded(WatchOptions(retriever=WatchedRetriever()), record, "refused", blind=True)["blind"]
    with pytest.raises(SignalUnavailableError, match="the model reported nothing, which TokenProbability.*continue"):
        degraded(strict, record, "the model reported nothing")
