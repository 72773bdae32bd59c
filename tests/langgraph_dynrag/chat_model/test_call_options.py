"""Options of one call: the model's, overridden by those of the call, and validated before anything is computed."""

import pytest

from langgraph_dynrag.chat_model.call_options import CallOptions, checked
from langgraph_dynrag.chat_model.chat_template import EncodedPrompt
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import Span
from tests.langgraph_dynrag.chat_model.schemas import SIDE, response_format_of
from tests.langgraph_dynrag.chat_model.tools import now, population, schemas


def prompt_of(ids):
    return EncodedPrompt(ids, "", [Span(0, 0)] * len(ids))


def options(stop=None, chat=None, **call):
    return CallOptions(chat or LocalChatModel(temperature=0.5, max_tokens=7, stop=["\n"], seed=3), stop, call)


def test_a_call_without_options_has_those_of_the_model():
    request = options().request(prompt_of([1, 2]))
    assert (request.prompt, request.max_new_tokens, request.stop) == ([1, 2], 7, ("\n",))
    assert (request.sampling.temperature, request.sampling.seed, request.sampling.constraint) == (0.5, 3, None)
    assert request.adapters is None
    assert not options().logprobs


def test_options_of_a_call_override_those_of_the_model():
    request = options(temperature=0.0, max_tokens=2, top_k=4, top_p=0.9, seed=None, logit_bias={"5": 1}).request(
        prompt_of([1])
    )
    assert (request.max_new_tokens, request.sampling.temperature) == (2, 0.0)
    assert (request.sampling.top_k, request.sampling.top_p, request.sampling.logit_bias) == (4, 0.9, {5: 1.0})
    assert request.sampling.seed == 3  # None stands for the model's


def test_the_stop_strings_of_a_call_replace_those_of_the_model():
    assert options(stop=["END"]).stop == ("END",)
    assert options(stop=[]).stop == ()
    assert options(stop_sequences=["END"]).stop == ("END",)


@pytest.mark.parametrize(
    ("alias", "value", "read"),
    [
        ("max_completion_tokens", 5, lambda o: o.max_tokens),
        ("max_new_tokens", 5, lambda o: o.max_tokens),
        ("request_timeout", 5.0, lambda o: o._timeout),
    ],
)
def test_langchain_names_of_options_are_known(alias, value, read):
    assert read(options(**{alias: value})) == value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"max_token": 3}, "a call of LocalChatModel has no argument 'max_token'.*max_tokens"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"model": "another"}, r"this model is 'embedded'; .*LocalChatModel\(model='another'\)"),
        ({"signals": ["entropy", "mood"]}, r"unknown signals \['mood'\]; known: entropy, attention"),
        ({"response_format": {"type": "xml"}}, "response_format is"),
        ({"tools": (), "tool_choice": "any"}, "tool_choice is 'any'"),
    ],
)
def test_invalid_options_are_refused(call, message):
    with pytest.raises(ConfigurationError, match=message):
        options(**call)


def test_options_that_langchain_passes_along_have_no_effect():
    same = options(stream=True, max_retries=2, stream_usage=True, model_name="embedded").request(prompt_of([1]))
    assert same.max_new_tokens == options().request(prompt_of([1])).max_new_tokens


def test_requested_signals_reach_the_engine():
    assert options().signals is None
    signals = options(signals=["attention"], top_logprobs=2).request(prompt_of([1])).signals
    assert (signals.attention, signals.entropy, signals.top_logprobs) == (True, False, 2)
    assert options(top_logprobs=2).logprobs
    assert options(signals=[]).signals is not None


def test_tools_are_offered_and_forced_as_chosen():
    offered = schemas(population, now)
    assert (len(options(tools=offered).tools), options(tools=offered).forced) == (2, ())
    forced = options(tools=offered, tool_choice="now", parallel_tool_calls=False)
    assert [t["function"]["name"] for t in forced.forced] == ["now"]
    assert not forced.parallel_tool_calls
    assert options(response_format=response_format_of(SIDE)).answer == SIDE


def test_a_call_that_exceeds_its_timeout_raises_with_the_tokens_so_far():
    quick = options(chat=LocalChatModel(timeout=1e-9))
    with pytest.raises(TimeoutError, match="longer than timeout=1e-09 seconds and was stopped after 3 tokens"):
        quick.check_time(3)
    options().check_time(3)
    options(timeout=1e9).check_time(3)


def test_values_are_converted_as_the_fields_of_the_model():
    chat = LocalChatModel()
    assert checked(chat, "max_tokens", "5") == 5
    with pytest.raises(ConfigurationError, match=r"stop is 5 \(int\)"):
        checked(chat, "stop", 5)
