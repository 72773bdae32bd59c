"""Structured replies and forced calls of a random model: it writes noise, so parsable output proves the constraint."""

import asyncio
import json
import sys
from enum import Enum
from typing import Annotated, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, StructuredOutputValidationError, ToolStrategy
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field, ValidationError, field_validator
from typing_extensions import TypedDict

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.chat_model.reply_grammar import answer_schema, json_or_calls
from langgraph_dynrag.chat_model.structured_output import IncompleteCallError
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

METHODS = ["function_calling", "json_schema"]


class Kind(Enum):
    VILLAGE = "Städtchen"
    CITY = "東京"


class Road(BaseModel):
    """A road."""

    to: Annotated[str, Field(max_length=4)]
    paved: bool


class Town(BaseModel):
    """A town."""

    name: Annotated[str, Field(min_length=1, max_length=5)]
    kind: Kind
    side: Literal["left", "right"]
    size: Annotated[int, Field(ge=1, le=9)] | None = None
    roads: Annotated[list[Road], Field(max_length=1)] = []


class TownDict(TypedDict):
    """A town."""

    side: Literal["left", "right"]
    paved: bool


SIDE = {
    "title": "Side",
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}, "paved": {"type": "boolean"}},
    "required": ["side", "paved"],
}


@tool
def population(town: Annotated[str, Field(max_length=4)]) -> str:
    """How many people live in a town."""
    return "1200"


@tool
def road(side: Literal["left", "right"], paved: bool = True) -> str:
    """Where a road leads."""
    return "to the sea"


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm, max_tokens=200)


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
    text = "".join(str(c.content) for c in chat.bind(response_format=_format(schema)).stream("?"))
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


def _format(schema):
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


UNIQUE = {"title": "Set", "type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}


@pytest.mark.parametrize(
    "ask",
    [
        lambda chat: chat.with_structured_output(UNIQUE),
        lambda chat: chat.with_structured_output(UNIQUE, method="json_schema"),
        lambda chat: chat.bind(response_format=_format(UNIQUE)),
        lambda chat: chat.bind_tools([UNIQUE], tool_choice="any"),
        lambda chat: chat.invoke("?", response_format=_format(UNIQUE)),
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
        lambda: chat.bind(response_format=_format(new)),
        lambda: chat.bind_tools([new], tool_choice="New"),
    ):
        with pytest.raises(ConfigurationError, match=r"pip install 'dynprag\[structured\]'"):
            ask()
    assert chat.bind_tools([new], max_tokens=2).invoke("?") is not None


# ---------------------------------------------------------------------- response_format


@pytest.mark.parametrize("given", [_format(SIDE), Town])
def test_a_bound_format_makes_the_text_json(chat, given):
    reply = chat.bind(response_format=given).invoke("?")
    assert reply.response_metadata["finish_reason"] == "stop"
    found = json.loads(reply.content)
    assert (Town(**found) if given is Town else found["side"]) is not None


def test_text_format_leaves_the_reply_unconstrained(chat):
    free = chat.invoke("?", max_tokens=9).content
    assert chat.bind(response_format={"type": "text"}).invoke("?", max_tokens=9).content == free
    assert answer_schema(None) is None


def test_log_probabilities_are_reported_for_every_token(chat):
    reply = chat.bind(response_format=_format(SIDE), logprobs=True, top_logprobs=1).invoke("?")
    entries = reply.response_metadata["logprobs"]["content"]
    assert "".join(e["token"] for e in entries) == reply.content
    # These are the model's own, before the schema: the forced tokens were rarely the most likely ones.
    assert any(e["logprob"] < e["top_logprobs"][0]["logprob"] for e in entries)


def test_a_reasoning_block_opened_by_the_template_is_closed_first():
    tokenizer = tiny_tokenizer().__class__(
        tokenizer_object=tiny_tokenizer().backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
    )
    tokenizer.chat_template = tiny_tokenizer().chat_template + "{% if add_generation_prompt %}<think>\n{% endif %}"
    reasons = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tokenizer, name="reasons"), max_tokens=60)
    reply = reasons.bind(response_format=_format(SIDE)).invoke("?")
    closed = reasons.encode([_human("?"), AIMessage("")]).ids
    assert reply.usage_metadata["input_tokens"] == len(closed) > len(reasons.encode([_human("?")]).ids)
    assert json.loads(reply.content)


def _human(text):
    from langchain_core.messages import HumanMessage

    return HumanMessage(text)


# ---------------------------------------------------------------------- calls


@pytest.mark.parametrize("choice", ["any", "road", {"type": "function", "function": {"name": "road"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls_follow_the_argument_schema(chat, choice, parallel):
    forced = chat.bind_tools([population, road], tool_choice=choice, parallel_tool_calls=parallel, temperature=1.0)
    for seed in (1, 2):
        reply = forced.invoke("?", seed=seed)
        (call,) = reply.tool_calls
        assert reply.response_metadata["finish_reason"] == "tool_calls"
        assert reply.content == ""
        if choice != "any":
            assert call["name"] == "road"
        {"population": population, "road": road}[call["name"]].invoke(call["args"])
        assert set(call["args"]) <= {"town", "side", "paved"}


@pytest.mark.parametrize(("options", "why"), [({"max_tokens": 4}, "max_tokens=4"), ({"stop": ["side"]}, "stop string")])
def test_a_forced_call_that_is_cut_off_is_an_error(chat, options, why):
    forced = chat.bind_tools([road], tool_choice="any", **options)
    with pytest.raises(IncompleteCallError, match=why) as error:
        forced.invoke("?")
    assert error.value.reply.usage_metadata["output_tokens"] > 0
    with pytest.raises(IncompleteCallError, match=why):
        list(forced.stream("?"))


def test_a_reply_with_tools_and_a_format_is_either_a_call_or_json(chat):
    either = chat.bind_tools([population, road], response_format=_format(SIDE), temperature=1.0)
    replies = [either.invoke("?", seed=seed) for seed in range(8)]
    called = [r for r in replies if r.tool_calls]
    said = [r for r in replies if not r.tool_calls]
    assert called
    assert said
    for reply in said:
        assert set(json.loads(reply.content)) == {"side", "paved"}
    for reply in called:
        assert reply.content == ""
        assert {c["name"] for c in reply.tool_calls} <= {"population", "road"}


def test_parallel_calls_can_be_disabled_with_tools_and_a_format(chat):
    either = chat.bind_tools([road], response_format=_format(SIDE), parallel_tool_calls=False, temperature=1.0)
    assert max(len(either.invoke("?", seed=seed).tool_calls) for seed in range(6)) == 1


def test_a_template_with_another_call_format_gets_calls_in_that_format(tiny_lm):
    from rag_backbone.engine.grammar import Grammar

    schemas = LocalChatModel().bind_tools([road]).kwargs["tools"]
    text = json_or_calls(SIDE, schemas, "no tags here", parallel=True)
    start = Grammar(text, tiny_lm.tokenizer, tiny_lm.engine.end_ids).begin()
    for token in tiny_lm.engine.encode('{"name": "road", "parameters": {"side": "left"}}'):
        start.accept(token)
    assert start.complete


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
