"""A graph's messages: the question's text, the turns before it, and the user's system text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from langgraph_dynrag.inputs.conversation import (
    Turn,
    earlier_turns,
    fitting,
    message_parts,
    not_text_warning,
    system_text,
)


def test_the_last_turns_within_the_budget_are_kept():
    turns = [Turn("user", "a b c"), Turn("assistant", "d e"), Turn("user", "f")]
    assert fitting(turns, 3, lambda text: len(text.split())) == turns[1:]
    assert fitting(turns[:1], 2, lambda text: len(text.split())) == [Turn("user", "b c")]
    assert system_text([SystemMessage("a"), HumanMessage("b"), SystemMessage("a")]) == "a"


def words(text):
    return len(text.split())


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


@pytest.mark.parametrize(
    ("content", "text", "others"),
    [
        ("Who?", "Who?", ()),
        ("Who \ud83d?", "Who \ufffd?", ()),
        ([{"type": "text", "text": "Who "}, "built it?"], "Who built it?", ()),
        ([IMAGE, {"type": "text", "text": "Who?"}, IMAGE], "Who?", ("image_url", "image_url")),
        ([{"type": "text", "text": None}], "", ()),
        ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Wray."}], "Wray.", ()),
    ],
)
def test_a_message_has_a_text_and_other_content(content, text, others):
    assert message_parts(AIMessage(content)) == (text, others)


def test_turns_are_what_user_and_assistant_said():
    messages = [
        SystemMessage("Be brief."),
        HumanMessage(" Who? "),
        AIMessage("<think>Hm.</think>Wray."),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage("seen", tool_call_id="1"),
        ChatMessage("And where?", role="user"),
        ChatMessage("In Hallin.", role="Assistant"),
        HumanMessage([IMAGE]),
    ]
    assert earlier_turns(messages) == [
        Turn("user", "Who?"),
        Turn("assistant", "Wray."),
        Turn("user", "And where?"),
        Turn("assistant", "In Hallin."),
    ]


def test_content_that_cannot_be_read_is_counted_by_type():
    audio = {"type": "input_audio", "input_audio": {}}
    messages = [HumanMessage([IMAGE, audio, IMAGE]), SystemMessage([IMAGE]), AIMessage([IMAGE])]
    warning = not_text_warning(messages)
    assert warning.endswith("left out: 3 of type 'image_url', 1 of type 'input_audio'")
    assert not_text_warning([HumanMessage("Who?"), AIMessage([IMAGE])]) is None


def test_system_texts_are_joined_in_order_and_once():
    messages = [SystemMessage("a"), ChatMessage(" b ", role="developer"), SystemMessage("a"), SystemMessage(" ")]
    assert system_text(messages) == "a\n\nb"
    assert system_text([HumanMessage("a")]) == ""


@given(st.lists(st.sampled_from(["a", "b c", " d e  f "]), max_size=6), st.integers(0, 12))
def test_turns_that_fit_are_the_last_ones_and_never_exceed_the_budget(said, budget):
    turns = [Turn("user", text) for text in said]
    kept = fitting(turns, budget, words)
    assert sum(words(turn.text) for turn in kept) <= budget
    whole = [turn for turn in kept if turn in turns]
    if len(whole) == len(kept):
        assert kept == turns[len(turns) - len(kept) :]
    else:  # only the last turn, without its first words
        assert len(kept) == 1
        assert turns[-1].text.split()[-words(kept[0].text) :] == kept[0].text.split()
