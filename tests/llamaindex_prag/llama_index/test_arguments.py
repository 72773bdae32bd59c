"""Tests that unknown arguments of the LlamaIndex classes are rejected, and those of the base classes accepted."""

import copy

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.prompts import PromptTemplate
from peft import LoraConfig, get_peft_model
from transformers import pipeline

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from llamaindex_prag.llama_index import MiniLMEmbedding, ParametricLLM, ParametricNodePostprocessor, ParametrizeNodes
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer


def test_unknown_arguments_are_rejected_with_the_nearest_name(llm, lm, store):
    for make, message in [
        (lambda: ParametricLLM(lm=lm, tempperature=2), "ParametricLLM has no argument 'tempperature'.*'temperature'"),
        (lambda: ParametricLLM(lm=lm, max_tokens=2), "'max_new_tokens'"),
        (lambda: ParametricLLM(lm=lm, max_adaptors=2), "'max_adapters'"),
        (lambda: ParametricLLM(lm=lm, callback_managers=None), "'callback_manager'"),
        (
            lambda: ParametricLLM(base_url="http://127.0.0.1:9/v1", store=store.path, server={"loadin": "push"}),
            r"ParametricLLM\(server=...\) has no argument 'loadin' \(did you mean 'loading'",
        ),
        (lambda: ParametricNodePostprocessor(llm=llm, mising="error"), "'missing'"),
        (lambda: ParametricNodePostprocessor(llm=llm, conflict="mean"), "'conflicts'"),
        (lambda: ParametrizeNodes(llm=llm, proggress=False), "'progress'"),
        (lambda: ParametrizeNodes(llm=llm, adapters=1), "no argument 'adapters'"),
        (lambda: MiniLMEmbedding(devise="cpu"), "'device'"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            make()


async def test_unknown_options_of_a_call_are_rejected_at_once(llm):
    messages = [ChatMessage(role="user", content="Who?")]
    for call in (
        lambda: llm.complete("Who?", max_token=3),
        lambda: llm.stream_complete("Who?", max_token=3),
        lambda: llm.chat(messages, max_token=3),
        lambda: llm.stream_chat(messages, max_token=3),
    ):
        with pytest.raises(AdapterError, match=r"'max_token' \(did you mean 'max_tokens'\?\)"):
            call()
    for call in (
        lambda: llm.acomplete("Who?", top_logprob=1),
        lambda: llm.astream_complete("Who?", top_logprob=1),
        lambda: llm.achat(messages, top_logprob=1),
        lambda: llm.astream_chat(messages, top_logprob=1),
    ):
        with pytest.raises(AdapterError, match="top_logprobs"):
            await call()
    assert llm.complete("Who?", max_tokens=3).additional_kwargs["completion_tokens"] <= 3
    assert llm.complete("Who?", max_new_tokens=3).text == llm.complete("Who?", max_tokens=3).text


async def test_choosing_among_nodes_is_refused_with_the_place_where_it_belongs(llm, lm, calls):
    messages = [ChatMessage(role="user", content="Who?")]
    advice = r"no argument route, max_active: .*ParametricNodePostprocessor\(llm=llm, route=.*llm\.model\.answer"
    with pytest.raises(ConfigurationError, match=advice):
        ParametricLLM(lm="/nowhere/at/all", route="lexical", max_active=2)  # before a model is loaded
    for call in (
        lambda: llm.complete("Who?", route="ask", max_active=2),
        lambda: llm.stream_complete("Who?", route="ask", max_active=2),
        lambda: llm.chat(messages, route="ask", max_active=2),
        lambda: llm.stream_chat(messages, route="ask", max_active=2),
    ):
        with pytest.raises(AdapterError, match=advice):
            call()
    for call in (
        lambda: llm.acomplete("Who?", route="ask", max_active=2),
        lambda: llm.astream_complete("Who?", route="ask", max_active=2),
        lambda: llm.achat(messages, route="ask", max_active=2),
        lambda: llm.astream_chat(messages, route="ask", max_active=2),
    ):
        with pytest.raises(AdapterError, match=advice):
            await call()
    assert not calls


def test_arguments_of_llamaindexs_base_classes_are_accepted(llm, lm, store):
    made = ParametricLLM(
        lm=lm,
        store=store,
        recipe="prag",
        max_adapters=3,
        callback_manager=CallbackManager([]),
        system_prompt="S",
        messages_to_prompt=lambda messages: "",
        completion_to_prompt=lambda text: text,
        output_parser=None,
        query_wrapper_prompt=PromptTemplate("{query_str}"),
        class_name="ParametricLLM",
    )
    assert made.model is llm.model
    ParametricNodePostprocessor(llm=llm, callback_manager=CallbackManager([]), class_name="x")
    MiniLMEmbedding(embed_batch_size=4, num_workers=1)

    class Mine(ParametricLLM):
        note: str = ""

    assert Mine(lm=lm, store=store, recipe="prag", max_adapters=3, note="own").note == "own"


def test_model_is_an_alias_of_lm(llm, lm, store, tmp_path):
    options = {"store": store, "recipe": "prag", "max_adapters": 3}
    assert ParametricLLM(model=lm, **options).model is llm.model
    loaded = ParametricLLM(model=str(tiny_folder(tmp_path / "my-llama")), store=tmp_path / "adapters")
    assert loaded.metadata.model_name == "my-llama"
    for other in (lm, "embedded", None):
        with pytest.raises(ConfigurationError, match="lm and model name the same argument"):
            ParametricLLM(lm=other, model=lm, **options)


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_model_argument_is_rejected_with_the_line_to_write():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    adapted = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM"))
    for given, advice in [
        (model, r"CausalLM\(model, tokenizer\)"),
        ((model, tokenizer), r"CausalLM\(model, tokenizer\)"),
        ([model, tokenizer], r"CausalLM\(model, tokenizer\)"),
        (adapted, r"CausalLM\(model\.merge_and_unload\(\), tokenizer\)"),
        (tokenizer, "It is a tokenizer"),
        (
            pipeline("text-generation", model=model, tokenizer=copy.deepcopy(tokenizer)),
            r"CausalLM\(pipe\.model, pipe\.tokenizer\)",
        ),
        (LocalChatModel.from_causal_lm(CausalLM(model, tokenizer)), r"lm=chat\.lm"),
        (MockLLM(), "base_url="),
        (3, "'embedded', a folder, a Hub id or a CausalLM is needed"),
    ]:
        for name in ("lm", "model"):
            with pytest.raises(ConfigurationError, match=advice):
                ParametricLLM(**{name: given})
        if not isinstance(given, tuple | list | int | MockLLM):
            with pytest.raises(ConfigurationError, match="is needed"):
                LocalChatModel(model=given)
            with pytest.raises(ConfigurationError, match="a CausalLM is needed"):
                LocalChatModel.from_causal_lm(given)
