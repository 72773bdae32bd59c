"""Lone surrogates are removed from messages, documents and plain data, which are never mutated."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Command

from langgraph_dynrag.clean_input import clean_all, clean_models

HALF, CLEAN = "a \ud83d b", "a \ufffd b"


@pytest.mark.parametrize(
    ("given_value", "cleaned"),
    [
        (HALF, CLEAN),
        ([HALF, {"k\ud800": HALF}], [CLEAN, {"k\ufffd": CLEAN}]),
        (("user", HALF), ("user", CLEAN)),
        (HumanMessage(HALF, name=HALF), HumanMessage(CLEAN, name=CLEAN)),
        (Document(HALF, metadata={"tags": [HALF]}), Document(CLEAN, metadata={"tags": [CLEAN]})),
        (
            {"messages": [HumanMessage([{"type": "text", "text": HALF}])]},
            {"messages": [HumanMessage([{"type": "text", "text": CLEAN}])]},
        ),
        (Command(update={"queries": [HALF]}, resume=HALF), Command(update={"queries": [CLEAN]}, resume=CLEAN)),
        ("\ud83d\ude00", "😀"),
        (5, 5),
        (None, None),
    ],
)
def test_every_string_is_cleaned_wherever_it_stands(given_value, cleaned):
    assert clean_models(given_value, "a test") == cleaned


def test_arguments_of_tool_calls_are_cleaned():
    message = AIMessage("", tool_calls=[{"name": "look", "args": {"query": HALF}, "id": "1"}])
    assert clean_models(message, "a test").tool_calls[0]["args"] == {"query": CLEAN}


def test_what_is_sound_is_returned_as_it_is_and_nothing_is_mutated():
    sound = HumanMessage("a b", id="1")
    assert clean_models(sound, "a test") is sound
    broken = HumanMessage(HALF, id="1")
    cleaned = clean_models(broken, "a test")
    assert (broken.content, cleaned.content, cleaned.id) == (HALF, CLEAN, "1")
    data = {"k": [HALF]}
    clean_models(data, "a test")
    assert data == {"k": [HALF]}


def test_other_objects_are_returned_unchanged():
    @dataclass
    class Own:
        text: str

    own = Own(HALF)
    assert clean_models(own, "a test") is own


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_sound_data_does_not_change(value):
    assert clean_models(value, "a test") == value


def test_a_sequence_becomes_a_list_of_cleaned_values():
    assert clean_all((HALF, HumanMessage(HALF)), "a test") == [CLEAN, HumanMessage(CLEAN)]
