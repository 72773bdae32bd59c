"""Grammars of replies: the schemas of formats, classes and tools, and the rules built from them."""

import pytest

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.chat_model.reply_grammar import json_or_calls
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
    from rag_backbone.engine.grammar import Grammar

    schemas = LocalChatModel().bind_tools([road]).kwargs["tools"]
    text = json_or_calls(SIDE, schemas, "no tags here", parallel=True)
    start = Grammar(text, tiny_lm.tokenizer, tiny_lm.engine.end_ids).begin()
    for token in tiny_lm.engine.encode('{"name": "road", "parameters": {"side": "left"}}'):
        start.accept(token)
    assert start.complete
