"""Grammars of replies: the schemas of formats, classes and tools, and the rules built from them."""

import pytest
from pydantic import BaseModel

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.chat_model.reply_grammar import (
    answer_schema,
    forced_call,
    json_or_calls,
    json_schema_of,
    tool_schema,
)
from rag_backbone.engine.grammar import Grammar
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.chat_model.schemas import SIDE, UNIQUE, response_format_of, road


@pytest.mark.parametrize(
    "ask",
    [
        lambda chat: chat.with_structured_output(UNIQUE),
        lambda chat: chat.with_structured_output(UNIQUE, method="json_schema"),
        lambda chat: chat.bind(response_format=response_format_of(UNIQUE)),
        lambda chat: chat.bind_tools([UNIQUE], tool_choice="any"),
        lambda chat: chat.invoke("?", response_format=response_format_of(UNIQUE)),
    ],
)
def test_an_unsupported_schema_is_refused_before_the_model_is_loaded(ask):
    with pytest.raises(ConfigurationError, match="uniqueItems"):
        ask(LocalChatModel(model="/nowhere/at/all"))


def test_a_tool_that_is_not_forced_may_have_any_schema(chat):
    assert chat.bind_tools([UNIQUE], max_tokens=3).invoke("?").content is not None


@pytest.mark.parametrize(
    "given", [{"type": "xml"}, {"type": "json_schema"}, "json", {"type": "json_schema", "json_schema": 3}]
)
def test_an_unknown_response_format_is_refused_with_the_known_ones(chat, given):
    with pytest.raises(ConfigurationError, match="response_format is .*known: .*json_object"):
        chat.bind(response_format=given)


def test_a_template_with_another_call_format_gets_calls_in_that_format(tiny_lm):
    schemas = LocalChatModel().bind_tools([road]).kwargs["tools"]
    text = json_or_calls(SIDE, schemas, "no tags here", parallel=True)
    start = Grammar(text, tiny_lm.tokenizer, tiny_lm.engine.end_ids).begin()
    for token in tiny_lm.engine.encode('{"name": "road", "parameters": {"side": "left"}}'):
        start.accept(token)
    assert start.complete


class Leaf(BaseModel):
    """A leaf."""

    name: str


class Branch(BaseModel):
    """A branch."""

    parts: list["Branch"] = []
    leaf: Leaf | None = None


def test_response_formats_become_schemas():
    assert answer_schema({"type": "json_object"}) == {"type": "object"}
    assert answer_schema(response_format_of(SIDE)) == SIDE
    assert answer_schema(Leaf) == Leaf.model_json_schema()
    assert answer_schema({"type": "text"}) is answer_schema(None) is None


def test_schemas_are_found_in_every_form_that_langchain_accepts():
    assert json_schema_of(Leaf) == Leaf.model_json_schema()
    assert json_schema_of(SIDE) is SIDE
    assert json_schema_of({"name": "side", "schema": SIDE}) is SIDE
    assert json_schema_of({"type": "json_schema", "json_schema": {"name": "side", "schema": SIDE}}) is SIDE
    assert set(json_schema_of({"name": "side", "description": "", "parameters": SIDE})["properties"]) == {
        "side",
        "paved",
    }


def test_a_recursive_class_keeps_its_definitions_as_a_tool():
    assert "$defs" in tool_schema(Branch)["function"]["parameters"]
    assert tool_schema(Leaf)["function"]["name"] == "Leaf"


def test_the_grammar_of_a_reply_offers_json_and_calls():
    tools = [tool_schema(Leaf), tool_schema(road)]
    assert json_or_calls(SIDE, [], "<tool_call>", parallel=True).startswith("start: %json ")
    several = json_or_calls(SIDE, tools, "<tool_call>", parallel=True).splitlines()
    assert several[0] == 'start: answer | call ("\\n" call)*'
    assert several[2].startswith('call: "<tool_call>\\n" (call0 | call1) ')
    one = json_or_calls(SIDE, tools, "<tool_call>", parallel=False).splitlines()
    assert one[0] == "start: answer | call"
    bare = json_or_calls(SIDE, tools, "", parallel=True).splitlines()
    assert bare[0] == "start: answer | call"  # without marks, a second object would not be a call
    assert '"parameters"' in bare[3]


def test_a_forced_call_is_followed_to_its_end(tiny_lm):
    grammar = Grammar(forced_call(tool_schema(road)), tiny_lm.tokenizer, tiny_lm.engine.end_ids)
    state = grammar.begin()
    for token in tiny_lm.engine.encode(' {"side": "left", "paved": true}}'):
        state.accept(token)
    assert state.complete
