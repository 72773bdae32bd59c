"""Structured replies and forced calls of a random model: it writes noise, so parsable output proves the constraint."""

import asyncio
import json
import sys
from typing import Annotated, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, StructuredOutputValidationError, ToolStrategy
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, Field, ValidationError, field_validator

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.chat_model.structured_output import IncompleteCallError
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.chat_model.schemas import METHODS, SIDE, Town, TownDict, response_format_of, road

# ---------------------------------------------------------------------- schemas and methods


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 3}])
def test_a_pydantic_class_gives_instances(chat, method, options):
    town = chat.with_structured_output(Town, method=method, **options).invoke("Describe it.")
    assert isinstance(town, Town)
    assert town.name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [TownDict, SIDE, {"name": "side", "description": "", "parameters": SIDE}])
def test_other_schemas_give_dicts_with_their_keys_and_no_others(chat, method, schema):
    found = chat.with_structured_output(schema, method=method).invoke("Describe it.")
    assert set(found) == {"side", "paved"}
    assert found["side"] in ("left", "right")
    assert isinstance(found["paved"], bool)


def test_openai_named_schemas_are_accepted(chat):
    named = {"name": "side", "schema": SIDE, "strict": True}
    for schema in (named, {"type": "json_schema", "json_schema": named}):
        assert set(chat.with_structured_output(schema, method="json_schema", strict=True).invoke("?")) == {
            "side",
            "paved",
        }


def test_a_schema_may_describe_any_json_type(chat):
    list_of_sides = {"type": "array", "items": {"enum": ["l", "r"]}, "minItems": 2, "maxItems": 2}
    found = chat.with_structured_output(list_of_sides, method="json_schema").invoke("?")
    assert len(found) == 2
    assert set(found) <= {"l", "r"}


class Tree(BaseModel):
    """A tree."""

    side: Literal["left", "right"]
    under: Annotated[list["Tree"], Field(max_length=1)] = []


@pytest.mark.parametrize("method", METHODS)
def test_a_recursive_class_is_followed_at_every_level(chat, method):
    follow = chat.with_structured_output(Tree, method=method, temperature=1.0, max_tokens=400)
    trees = [follow.invoke("?", seed=seed) for seed in range(6)]
    assert all(isinstance(t, Tree) for t in trees)
    assert any(t.under for t in trees)


def test_json_mode_allows_any_object(chat):
    quote, brace = (chat.get_token_ids(c)[0] for c in '"}')
    any_object = chat.with_structured_output(method="json_mode", logit_bias={brace: 100.0, quote: 50.0})
    assert any_object.invoke("?") == {}
    with pytest.raises(ValidationError, match="side"):  # the class only validates
        chat.with_structured_output(Tree, method="json_mode", logit_bias={brace: 100.0}).invoke("?")


def test_the_same_seed_gives_the_same_reply(chat):
    sampled = chat.with_structured_output(Town, temperature=1.5)
    assert sampled.invoke("?", seed=5) == sampled.invoke("?", seed=5) != sampled.invoke("?", seed=6)


async def test_batched_and_asynchronous_calls_give_the_same_replies(chat):
    side = chat.with_structured_output(SIDE, method="json_schema")
    alone = [side.invoke(q) for q in ("One?", "Two?")]
    assert side.batch(["One?", "Two?"]) == alone
    assert await side.abatch(["One?", "Two?"]) == alone
    assert [x async for x in side.astream("One?")][-1] == alone[0]


async def test_a_concurrent_call_without_a_format_is_unaffected(chat):
    side = chat.with_structured_output(SIDE, method="json_schema")
    free = chat.model_copy(update={"max_tokens": 30})
    alone = side.invoke("?"), free.invoke("?").content
    found, said = await asyncio.gather(side.ainvoke("?"), free.ainvoke("?"))
    assert (found, said.content) == alone


# ---------------------------------------------------------------------- streams


def test_json_is_streamed_as_it_is_generated(chat):
    schema = {**SIDE, "properties": {"name": {"type": "string", "maxLength": 9}, **SIDE["properties"]}}
    pieces = list(chat.with_structured_output(schema, method="json_schema").stream("?"))
    assert len(pieces) > 2
    assert set(pieces[-1]) >= {"side", "paved"}
    text = "".join(str(c.content) for c in chat.bind(response_format=response_format_of(schema)).stream("?"))
    assert json.loads(text) == pieces[-1]


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_ends_with_an_instance_or_raises(chat, method):
    assert isinstance(list(chat.with_structured_output(Town, method=method).stream("?"))[-1], Town)
    with pytest.raises(OutputParserException, match="max_tokens=4"):
        list(chat.with_structured_output(Town, method=method, max_tokens=4).stream("?"))


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_with_include_raw_reports_value_and_error(chat, method):
    def streamed(**options):
        whole = None
        for part in chat.with_structured_output(Town, method=method, include_raw=True, **options).stream("?"):
            whole = part if whole is None else whole + part
        return whole

    told = streamed()
    assert (type(told["parsed"]), told["parsing_error"]) == (Town, None)
    told = streamed(max_tokens=4)
    assert told["parsed"] is None
    assert "max_tokens=4" in str(told["parsing_error"])


# ---------------------------------------------------------------------- errors are reported


@pytest.mark.parametrize("method", [*METHODS, "json_mode"])
def test_a_reply_that_is_cut_off_is_an_error(chat, method):
    with pytest.raises(OutputParserException, match="cut off at max_tokens=5"):
        chat.with_structured_output(Town, method=method, max_tokens=5).invoke("?")
    told = chat.with_structured_output(Town, method=method, max_tokens=5, include_raw=True).invoke("?")
    assert set(told) == {"raw", "parsed", "parsing_error"}
    assert told["parsed"] is None
    assert told["raw"].response_metadata["finish_reason"] == "length"
    assert "cut off at max_tokens=5" in str(told["parsing_error"])


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_string_inside_the_json_is_an_error(chat, method):
    with pytest.raises(OutputParserException, match="by a stop string or a stop rule"):
        chat.with_structured_output(Town, method=method, stop=['"kind"']).invoke("?")
    # A stop string that does not occur changes nothing.
    assert chat.with_structured_output(Town, method=method, stop=["<stop>"]).invoke("?").name


class Refused(BaseModel):
    """A side that is never right."""

    side: Literal["left", "right"]

    @field_validator("side")
    @classmethod
    def _never(cls, side):
        raise ValueError("no side is right")


@pytest.mark.parametrize("method", METHODS)
def test_a_validation_error_is_raised_or_returned(chat, method):
    with pytest.raises(ValidationError, match="no side is right"):
        chat.with_structured_output(Refused, method=method).invoke("?")
    told = chat.with_structured_output(Refused, method=method, include_raw=True).invoke("?")
    assert isinstance(told["parsing_error"], ValidationError)


def test_arguments_are_validated_at_construction(chat):
    with pytest.raises(ConfigurationError, match="'function_calling', 'json_schema', 'json_mode'"):
        chat.with_structured_output(SIDE, method="json")
    with pytest.raises(ConfigurationError, match="schema is None"):
        chat.with_structured_output()
    with pytest.raises(ConfigurationError, match="max_token"):
        chat.with_structured_output(SIDE, max_token=3)


def test_a_missing_library_error_names_the_extra_to_install(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    new = {"title": "New", "type": "object", "properties": {"never asked for": {"const": 1}}}
    for ask in (
        lambda: chat.with_structured_output(new),
        lambda: chat.bind(response_format=response_format_of(new)),
        lambda: chat.bind_tools([new], tool_choice="New"),
    ):
        with pytest.raises(ConfigurationError, match=r"pip install 'dynprag\[structured\]'"):
            ask()
    assert chat.bind_tools([new], max_tokens=2).invoke("?") is not None


# ---------------------------------------------------------------------- agents


@pytest.mark.parametrize("form", [Town, ToolStrategy(Town), ProviderStrategy(Town)])
def test_an_agent_answers_in_the_response_format(chat, form):
    agent = create_agent(chat, response_format=form)
    assert isinstance(agent.invoke({"messages": ["Describe it."]})["structured_response"], Town)


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
async def test_an_agent_with_tools_calls_them_or_answers_in_the_response_format(chat, strategy):
    sampled = chat.model_copy(update={"temperature": 1.0, "seed": 1})
    agent = create_agent(sampled, [road], response_format=strategy(TownDict))
    found = await agent.ainvoke({"messages": ["Describe it."]}, {"recursion_limit": 60})
    assert set(found["structured_response"]) == {"side", "paved"}


@pytest.mark.parametrize(
    ("form", "error"), [(ProviderStrategy, StructuredOutputValidationError), (ToolStrategy, IncompleteCallError)]
)
def test_a_truncated_agent_answer_is_an_error(tiny_lm, form, error):
    short = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=6)
    with pytest.raises(error):
        create_agent(short, response_format=form(Town)).invoke({"messages": ["?"]})


# ---------------------------------------------------------------------- a real model


class Answer(BaseModel):
    """What a text says of a town."""

    town: str
    inhabitants: int
    by_the_sea: bool | None


def test_the_embedded_model_fills_in_a_schema(embedded_lm):
    chat = LocalChatModel.from_causal_lm(embedded_lm, max_tokens=60)
    asked = "Hallin is a town of 1200 inhabitants by the sea. Tell its name and its inhabitants as JSON."
    found = chat.with_structured_output(Answer, method="json_schema").invoke(asked)
    assert (found.town, found.inhabitants) == ("Hallin", 1200)
