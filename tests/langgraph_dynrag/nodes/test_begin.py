"""The first node: which question a run answers, and what of an earlier run is cleared."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.types import Overwrite

from langgraph_dynrag import AnswerPrompt, Budgets, create_nodes
from langgraph_dynrag.nodes import Begin, after_begin
from langgraph_dynrag.nodes.begin import asked_question
from rag_backbone.errors import ConfigurationError, ContextWindowError
from tests.langgraph_dynrag.running import scripted_settings


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ({"question": " Who? "}, ("Who?", None)),
        ({"messages": [HumanMessage("Who?", id="1")]}, ("Who?", "1")),
        ({"messages": [HumanMessage("Who?"), AIMessage("Wray.")]}, ("", None)),  # the last word was the model's
        # A question of this call takes precedence over a message that was answered before ...
        (
            {
                "question": "Where?",
                "messages": [HumanMessage("Who?", id="1")],
                "answered": {"question": "Who?", "message_id": "1"},
            },
            ("Where?", None),
        ),
        # ... and a new message over the question that the thread still holds.
        (
            {
                "question": "Who?",
                "messages": [HumanMessage("Where?", id="2")],
                "answered": {"question": "Who?", "message_id": "1"},
            },
            ("Where?", "2"),
        ),
        # A repeated question is asked again.
        ({"question": "Who?", "answered": {"question": "Who?", "message_id": None}}, ("Who?", None)),
        # Only a thread assigns ids.
        (
            {
                "question": "Who?",
                "messages": [HumanMessage("Where?")],
                "answered": {"question": "Who?", "message_id": None},
            },
            ("Where?", None),
        ),
        ({}, ("", None)),
    ],
)
def test_which_question_a_state_asks(state, asked):
    assert asked_question(state) == asked


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_state_of_an_earlier_run_is_cleared(asynchronous):
    begin = Begin(scripted_settings(initial_retrieval=False))
    old = {"text": "Old.", "evidence": [{"id": "1"}], "retrievals": 9, "stage": "done", "seconds": {"retrieve": 5.0}}
    state = {**old, "question": "Who?"}
    update = asyncio.run(begin.ainvoke(state)) if asynchronous else begin.invoke(state)
    assert (update["text"], update["evidence"], update["retrievals"], update["stage"]) == ("", [], 0, "drafting")
    assert set(update["seconds"]) == {"begin"}
    assert update["answered"] == {"question": "Who?", "message_id": None}
    # The trace of an earlier run is replaced, not extended.
    assert isinstance(update["trace"], Overwrite)
    assert [e["type"] for e in update["trace"].value] == ["question"]


def test_each_run_has_an_id_of_its_own():
    begin = Begin(scripted_settings())
    assert begin({"question": "Who?"})["run_id"] != begin({"question": "Who?"})["run_id"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preset": "single"}, "once, before the answer"),
        ({"preset": "flare"}, "initial retrieval"),
        ({"preset": "flare", "initial_retrieval": False}, None),
        ({"preset": "single", "budgets": Budgets(retrievals=0)}, None),
    ],
)
def test_a_search_before_the_answer_uses_the_question(options, reason):
    update = Begin(scripted_settings(**options))({"question": "Who?"})
    assert update["queries"] == ([] if reason is None else ["Who?"])
    assert update["trace"].value[0].get("reason") == reason
    assert after_begin(update) == ("generate" if reason is None else "retrieve")


def test_system_messages_are_kept_and_content_that_is_not_text_is_reported():
    image = HumanMessage([{"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {"url": "x"}}])
    update = Begin(scripted_settings())({"messages": [SystemMessage("Be brief."), image]})
    assert (update["question"], update["system"]) == ("Who?", "Be brief.")
    assert "1 of type 'image_url'" in update["trace"].value[-1]["warning"]


@pytest.mark.parametrize("state", [{}, {"question": " \n"}, {"messages": [AIMessage("Hello.")]}])
def test_a_state_without_a_question_is_refused(state):
    with pytest.raises(ConfigurationError, match="the question is empty"):
        Begin(scripted_settings())(state)


def test_a_question_without_room_for_an_answer_is_refused_with_the_numbers(chat):
    begin = create_nodes(chat, preset="no_retrieval", prompt=AnswerPrompt(), budgets=Budgets(tokens=2000)).begin
    with pytest.raises(
        ContextWindowError, match=r"2024 are kept for the answer, but the model's context window is 2048"
    ):
        begin({"question": "Who?"})
    # The user's own system text counts as well.
    roomy = create_nodes(chat, preset="no_retrieval", prompt=AnswerPrompt(), budgets=Budgets(tokens=1000)).begin
    assert roomy({"question": "Who?"})["question"] == "Who?"
    with pytest.raises(ContextWindowError):
        roomy({"messages": [SystemMessage("Be brief. " * 900), HumanMessage("Who?")]})


def test_token_ids_are_tracked_only_for_models_that_continue_by_ids(chat):
    local = create_nodes(chat, preset="no_retrieval").begin
    assert local({"question": "Who?"})["token_ids"] == []
    assert Begin(scripted_settings())({"question": "Who?"})["token_ids"] is None
