"""Any model becomes a completer: prompts in, replies or errors out."""

from types import SimpleNamespace

import pytest

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.completion import Prompt, _whole_lines, completer_of
from rag_backbone.engine.requests import Generation, TokenCounts
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM


@pytest.mark.parametrize("llm", [3, object(), CausalLM, "gpt"])
def test_objects_that_are_not_models_are_refused(llm):
    with pytest.raises(ConfigurationError, match="must be a CausalLM"):
        Augmenter(llm)


def test_special_tokens_in_a_passage_do_not_end_its_turn(tiny_lm):
    llm = completer_of(tiny_lm, temperature=0.7, top_k=50, max_new_tokens=4)
    request = llm._request(Prompt("One <|end|> two", 1, "Q: Who"))
    assert list(request.prompt).count(tiny_lm.tokenizer.convert_tokens_to_ids("<|end|>")) == 1
    assert request.sampling.seed == 1
    assert tiny_lm.tokenizer.decode(request.prompt).endswith("assistant\nQ: Who")


def completer(llm):
    return completer_of(llm, temperature=0.7, top_k=50, max_new_tokens=4)


PROMPTS = [Prompt("one", 0), Prompt("two", 1), Prompt("three", 2)]


def reply(text):
    if text == "two":
        raise TimeoutError("slow")
    return text.upper()


async def areply(text):
    return reply(text)


@pytest.mark.parametrize("llm", [reply, areply])
async def test_replies_and_errors_come_in_the_order_of_the_prompts(llm):
    first, second, third = await completer(llm).acomplete(PROMPTS)
    assert (first, third) == ("ONE", "THREE")
    assert isinstance(second, TimeoutError)


def test_a_synchronous_call_reports_each_reply_and_needs_a_synchronous_model():
    finished = []
    assert completer(reply).complete(PROMPTS, finished.append)[0] == "ONE"
    assert finished == [1.0] * 3
    with pytest.raises(ConfigurationError, match="asynchronous only; use await aaugment"):
        completer(areply).complete(PROMPTS)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (["two ", {"type": "text", "text": "blocks"}, 7], "two blocks"),
        ([{"type": "image"}], ""),
    ],
)
def test_text_and_content_blocks_become_a_reply(content, text):
    chat = SimpleNamespace(invoke=lambda _: SimpleNamespace(content=content))
    assert completer(chat).complete(PROMPTS[:1]) == [text]


def test_a_result_without_text_is_an_error_that_says_what_is_needed():
    (error,) = completer(SimpleNamespace(complete=lambda _: 7)).complete(PROMPTS[:1])
    assert isinstance(error, TypeError)
    assert str(error) == "the model returned 7; a text or an object with .text is needed"


def test_only_models_with_a_name_have_an_identity(tiny_lm):
    assert completer(reply).identity == f"{__name__}.reply"
    assert completer(lambda text: text).identity is None
    assert completer(SimpleNamespace(invoke=reply)).identity is None
    assert completer(SimpleNamespace(invoke=reply, model="m")).identity == "types.SimpleNamespace/m"
    metadata = SimpleNamespace(model_name="n")
    assert completer(SimpleNamespace(complete=reply, metadata=metadata)).identity == "types.SimpleNamespace/n"
    assert completer(tiny_lm).identity == tiny_lm.fingerprint


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        ("Q: a\nA: b\nQ: c", "length", "Q: a\nA: b\n"),
        ("Q: a\nA: b\nQ: c", "eos", "Q: a\nA: b\nQ: c"),
        ("one line", "length", "one line"),
    ],
)
def test_a_last_line_that_the_token_limit_cut_is_dropped_unless_it_is_the_only_one(text, reason, kept):
    assert _whole_lines(Generation(text, (), reason, 1, TokenCounts(), None)) == kept
