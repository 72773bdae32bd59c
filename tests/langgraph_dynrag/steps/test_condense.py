"""Questions at the end of a conversation: rewritten to stand alone, with the user's system message kept."""

import logging
from dataclasses import dataclass

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from langgraph_dynrag.inputs.condensing import Condensed
from langgraph_dynrag.trace.html import page
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

ASKED = "And where was he born?"
ALONE = "Where was Aldous Wray born?"
ANSWER = "He was born in Hallin. So the answer is Hallin."
BEFORE = [HumanMessage("Who built the Cooper's Bridge?"), AIMessage("Aldous Wray.")]
TALK = [*BEFORE, HumanMessage(ASKED)]


def built(*replies, preset="single", **options):
    model = ScriptedChatModel(replies=[said(r) for r in replies], reports=False)
    retriever = WatchedRetriever()
    return create_dynamic_rag(model, retriever, preset=preset, prompt=AnswerPrompt(), **options), model, retriever


def condensed(out):
    return next(e for e in out["trace"] if e["type"] == "condensed")


def check(out, model, retriever):
    assert out["question"] == ALONE
    assert retriever.queries == [ALONE]
    assert ALONE in model.calls[1][-1].content
    assert ASKED not in model.calls[1][-1].content
    assert "Assistant: Aldous Wray." in model.calls[0][-1].content
    event = condensed(out)
    assert (event["asked"], event["question"], event["turns"], event["problem"]) == (ASKED, ALONE, 2, None)
    assert not out["warnings"]


def test_a_question_is_condensed_with_the_conversation_before_search_and_answer():
    graph, model, retriever = built(ALONE, ANSWER)
    out = graph.invoke({"messages": TALK})
    check(out, model, retriever)
    trace = Trace.from_state(out)
    for shown in (str(trace), page(trace)):
        assert ASKED in shown
        assert f"condensed to: {ALONE}" in shown


async def test_a_question_is_also_condensed_asynchronously():
    graph, model, retriever = built(ALONE, ANSWER)
    check(await graph.ainvoke({"messages": TALK}), model, retriever)


@pytest.mark.parametrize(
    "given",
    [
        {"question": ASKED},
        {"messages": [HumanMessage(ASKED)]},
        {"messages": [SystemMessage("Be brief."), HumanMessage(" "), AIMessage(""), HumanMessage(ASKED)]},
        {"messages": BEFORE, "question": ASKED},
    ],
)
def test_nothing_is_condensed_without_earlier_turns_or_for_a_separate_question(given):
    graph, model, retriever = built(ANSWER)
    assert graph.invoke(given)["question"] == ASKED
    assert retriever.queries == [ASKED]
    assert len(model.calls) == 1


def test_condensing_can_be_disabled():
    graph, model, retriever = built(ANSWER, condense=None)
    graph.invoke({"messages": TALK})
    assert retriever.queries == [ASKED]
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "<think>Who is he?</think>",
        "He was born in Hallin.",
        "The answer is Hallin",
        "word " * 90 + "?",
        "\u5b57" * 600,
    ],
)
def test_a_useless_reply_is_reported_and_the_original_question_is_used(reply, caplog):
    graph, _, retriever = built(reply, ANSWER)
    with caplog.at_level(logging.WARNING):
        out = graph.invoke({"messages": TALK})
    assert retriever.queries == [ASKED]
    assert condensed(out)["problem"]
    assert "without the conversation before it" in out["warnings"][0]
    assert out["warnings"][0] in caplog.text


class FailsFirst(ScriptedChatModel):
    def _next(self, messages, kwargs):
        if "Conversation:" in messages[-1].content:
            raise ConnectionError("the server is away")
        return super()._next(messages, kwargs)


def test_a_model_error_is_reported_and_the_original_question_is_used():
    retriever = WatchedRetriever()
    model = FailsFirst(replies=[said(ANSWER)], reports=False)
    out = create_dynamic_rag(model, retriever, preset="single", prompt=AnswerPrompt()).invoke({"messages": TALK})
    assert retriever.queries == [ASKED]
    assert "the server is away" in out["warnings"][0]


@dataclass(frozen=True)
class LastAnswer:
    def prompt(self, turns, question):
        return f"Put {turns[-1].text if turns else ''} into: {question}"

    def read(self, reply, question):
        return Condensed(f"{question} ({reply})")


def test_the_condenser_can_be_replaced():
    graph, model, retriever = built("Wray", ANSWER, condense=LastAnswer())
    graph.invoke({"messages": TALK})
    assert retriever.queries == [f"{ASKED} (Wray)"]
    assert model.calls[0][-1].content == f"Put Aldous Wray. into: {ASKED}"


def test_system_messages_follow_the_instructions_in_every_prompt_of_the_answer():
    systems = [SystemMessage("Answer like a pirate."), SystemMessage([{"type": "text", "text": "Be brief."}])]
    graph, model, _ = built(ALONE, "He was born in Hallin.", " So the answer is Hallin.")
    out = graph.invoke({"messages": [systems[0], *BEFORE, systems[1], TALK[-1]]})
    assert out["short_answer"] == "Hallin"
    assert len(model.calls) == 3  # the last call asks for the short answer
    for call in model.calls[1:]:
        assert call[0].content == f"{AnswerPrompt().instructions}\n\nAnswer like a pirate.\n\nBe brief."
        assert sum(isinstance(m, SystemMessage) for m in call) == 1


def test_a_second_question_on_a_thread_is_condensed_with_the_first():
    graph, model, retriever = built("It was Wray. So the answer is Wray.", ALONE, ANSWER, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": [SystemMessage("Be brief."), BEFORE[0]]}, config)
    out = graph.invoke({"messages": [HumanMessage(ASKED)]}, config)
    assert retriever.queries == [BEFORE[0].content, ALONE]
    assert "Assistant: It was Wray." in model.calls[1][-1].content
    assert model.calls[2][0].content.endswith("\n\nBe brief.")
    assert out["short_answer"] == "Hallin"


def test_searches_written_by_the_model_answer_the_condensed_question():
    graph, model, retriever = built(ALONE, "<search>Aldous Wray</search>", f" {ANSWER}", preset="search_tag")
    out = graph.invoke({"messages": [SystemMessage("Be brief."), *TALK]})
    assert out["question"] == ALONE
    assert ALONE in model.calls[1][-1].content
    assert "Be brief." in model.calls[1][0].content
    assert retriever.queries == ["Aldous Wray"]


def test_images_are_reported_text_is_used_and_tool_messages_are_not_turns():
    image = {"type": "image_url", "image_url": {"url": "x"}}
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    graph, model, retriever = built(ALONE, ANSWER)
    asked = HumanMessage([{"type": "text", "text": ASKED}, image])
    out = graph.invoke({"messages": [*BEFORE, call, ToolMessage("seen", tool_call_id="1"), asked]})
    assert retriever.queries == [ALONE]
    assert condensed(out)["turns"] == 2
    assert "1 of type 'image_url'" in out["warnings"][0]
    assert "seen" not in model.calls[0][-1].content
