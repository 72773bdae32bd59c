"""The local chat model: bound formats, forced calls, and what it reports with a reply."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from langgraph_dynrag.chat_model.chat_template import encode_chat
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.chat_model.reply_grammar import answer_schema
from langgraph_dynrag.chat_model.structured_output import IncompleteCallError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.chat_model import tools
from tests.langgraph_dynrag.chat_model.schemas import SIDE, Town, population, response_format_of, road
from tests.langgraph_dynrag.chat_model.tools import distance, now, schemas
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("given", [response_format_of(SIDE), Town])
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
    reply = chat.bind(response_format=response_format_of(SIDE), logprobs=True, top_logprobs=1).invoke("?")
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
    reply = reasons.bind(response_format=response_format_of(SIDE)).invoke("?")
    closed = reasons.encode([_human("?"), AIMessage("")]).ids
    assert reply.usage_metadata["input_tokens"] == len(closed) > len(reasons.encode([_human("?")]).ids)
    assert json.loads(reply.content)


def _human(text):
    from langchain_core.messages import HumanMessage

    return HumanMessage(text)


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
    either = chat.bind_tools([population, road], response_format=response_format_of(SIDE), temperature=1.0)
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
    either = chat.bind_tools(
        [road], response_format=response_format_of(SIDE), parallel_tool_calls=False, temperature=1.0
    )
    assert max(len(either.invoke("?", seed=seed).tool_calls) for seed in range(6)) == 1


def test_any_model_can_be_forced_to_call_a_tool(tiny_lm):
    """A random model writes no JSON, but a tool without arguments needs none, and the call stays well-formed."""
    chat = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=8)
    reply = chat.bind_tools([now], tool_choice="any").invoke("What time is it?")
    assert [(c["name"], c["args"]) for c in reply.tool_calls] == [("now", {})]
    assert reply.content == ""
    assert reply.response_metadata["finish_reason"] == "tool_calls"


def test_the_forced_tool_is_the_one_with_the_likeliest_name(tiny_lm):
    chat = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=8)
    offered = [now, *(_named(n) for n in ("the_town", "wrote"))]
    schemas_ = schemas(*offered)
    prompt = encode_chat(tiny_lm.tokenizer, [HumanMessage("Who?"), AIMessage('<tool_call>\n{"name": "')], schemas_).ids
    means = {}
    for t in schemas_:
        name = t["function"]["name"]
        ids = chat.get_token_ids(name + '"')
        means[name] = sum(tiny_lm.engine.score(prompt, ids).logprobs.tolist()) / len(ids)
    reply = chat.bind_tools(offered, tool_choice="any").invoke("Who?")
    assert reply.tool_calls[0]["name"] == max(means, key=means.get)


def _named(name):
    @tool(name)
    def made() -> str:
        """A tool."""
        return ""

    return made


def test_the_embedded_model_fills_in_the_arguments_of_a_call(embedded_lm):
    chat = LocalChatModel.from_causal_lm(embedded_lm, max_tokens=40)
    bound = chat.bind_tools([tools.population, now], tool_choice="population")
    asked = "How many people live in Hallin?"
    reply = bound.invoke(asked)
    assert [(c["name"], c["args"]) for c in reply.tool_calls] == [("population", {"town": "Hallin"})]
    streamed = None
    for chunk in bound.stream(asked):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [("population", {"town": "Hallin"})]
    both = chat.bind_tools([distance], tool_choice="any").invoke("How far is it from Hallin to Brannoch?").tool_calls
    assert set(both[0]["args"]) >= {"start"}


def test_log_probabilities_of_a_call_are_not_reported(embedded_lm):
    chat = LocalChatModel.from_causal_lm(embedded_lm, max_tokens=40, logprobs=True)
    reply = chat.bind_tools([tools.population], tool_choice="any").invoke("How many people live in Hallin?")
    assert reply.tool_calls
    assert "logprobs" not in reply.response_metadata
    words = chat.bind_tools([tools.population]).invoke("Say hello.")
    entries = words.response_metadata["logprobs"]["content"]
    assert "".join(e["token"] for e in entries) == words.content
