"""The language model of LlamaIndex: its adapters, its settings, and the references in its prompts."""

import logging
import threading

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import MetadataMode

from llamaindex_prag.llama_index import ParametricLLM
from llamaindex_prag.llama_index.markers import marker
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS


def test_a_prompt_signed_by_another_process_is_logged(llm, answered, calls, caplog):
    signed = answered.node.get_content(MetadataMode.LLM)
    foreign = signed[:12] + ("A" if signed[12] != "A" else "B") + signed[13:]
    with caplog.at_level(logging.WARNING):
        llm.complete(f"{signed}\n{QUESTION}")
        assert not caplog.records
        llm.complete(f"{foreign}\n{QUESTION}")
    assert calls[-1][1] is None
    assert "a prompt holds 1 references to adapters that this process did not sign" in caplog.text


def test_llms_of_one_model_share_its_bank_and_conflicting_settings_are_rejected(llm, lm, store):
    again = ParametricLLM(lm=lm, store=store.path, recipe="prag", max_adapters=3, temperature=0.5)
    assert again.model is llm.model
    with pytest.raises(ConfigurationError, match="already answers from"):
        ParametricLLM(lm=lm, store=store, recipe="distill", max_adapters=3)


def test_the_metadata_tell_windows_and_name_and_that_it_is_no_chat_model(llm, lm):
    told = llm.metadata
    assert (told.context_window, told.num_output, told.model_name) == (lm.context_window, 12, "tiny")
    assert not told.is_chat_model  # synthesizers then pass templates and arguments, not finished messages


def test_a_prompt_selects_its_references_in_order_with_their_strengths(llm, calls):
    first, second = (llm.model.key(TEXTS[i]) for i in (0, 1))
    llm.complete(f"{marker(second, 0.9, 0.5)}\n{marker(first)}\n{QUESTION}")
    prompt, selection = calls[-1]
    assert selection.keys == (second, first)
    assert selection.weights == pytest.approx((0.25, 0.5))
    assert "⟦" not in prompt


def test_references_without_strength_are_not_used(llm, calls):
    llm.complete(f"{marker(llm.model.key(TEXTS[0]), 0.9, 0.0)}\n{QUESTION}")
    assert calls[-1][1] is None


def test_merging_by_score_weighs_references_by_their_scores(llm, calls):
    by_score = llm.model_copy(update={"merge": "score", "strength": 0.5})
    references = [marker(llm.model.key(TEXTS[i]), score) for i, score in ((0, 0.75), (1, 0.25))]
    by_score.complete("\n".join([*references, QUESTION]))
    assert calls[-1][1].weights == pytest.approx((0.375, 0.125), abs=1e-3)


def test_an_ensemble_mixes_references_by_the_softmax_of_their_scores(llm, calls):
    mixing = llm.model_copy(update={"ensemble": "product", "strength": 0.5})
    references = [marker(llm.model.key(TEXTS[i]), score) for i, score in ((0, 0.75), (1, 0.25))]
    text = mixing.complete("\n".join([*references, QUESTION])).text
    made = calls[-1][1]
    assert made.kind == "product"
    assert made.weights == pytest.approx((0.6225, 0.3775), abs=1e-3)  # 1 / (1 + exp(-0.5))
    assert [one.weights for one in made.members] == [(0.5,), (0.5,)]
    assert [r.text for r in mixing.stream_complete("\n".join([*references, QUESTION]))][-1] == text
    assert (
        ParametricLLM.from_dict({**mixing.to_dict(), "lm": llm.model.lm, "store": llm.model.store}).ensemble
        == "product"
    )


async def test_every_way_to_ask_gives_the_same_text(llm):
    asked = f"{marker(llm.model.key(TEXTS[0]))}\n{QUESTION}"
    text = llm.complete(asked).text
    assert (await llm.acomplete(asked)).text == text
    assert [r.text for r in llm.stream_complete(asked)][-1] == text
    assert "".join([r.delta async for r in await llm.astream_complete(asked)]) == text
    message = [ChatMessage(role="user", content=asked)]  # alone, it is formatted as in `complete`
    assert llm.chat(message).message.content == text
    assert (await llm.achat(message)).message.content == text
    assert [r.message.content for r in llm.stream_chat(message)][-1] == text


async def test_no_asynchronous_call_reads_the_store_in_the_event_loop(llm, monkeypatch):
    read = []
    generation = type(llm.model.store).generation
    monkeypatch.setattr(
        type(llm.model.store),
        "generation",
        property(lambda store: read.append(threading.get_ident()) or generation.fget(store)),
    )
    asked = f"{marker(llm.model.key(TEXTS[0]))}\n{QUESTION}"
    message = [ChatMessage(role="user", content=asked)]
    await llm.acomplete(asked)
    await llm.achat(message)
    assert [r async for r in await llm.astream_complete(asked)]
    assert [r async for r in await llm.astream_chat(message)]
    assert len(read) >= 4
    assert threading.get_ident() not in read  # a shared store may have to ask a server


def test_options_of_a_call_reach_the_engine(llm):
    told = llm.complete(QUESTION, max_tokens=5, top_logprobs=2)
    counts = told.additional_kwargs
    assert (counts["completion_tokens"], counts["finish_reason"]) == (5, "length")
    assert all(len(alternatives) == 2 for alternatives in told.logprobs)
    assert "".join(alternatives[0].token for alternatives in told.logprobs) == told.text
    letter = told.text[1]
    stopped = llm.complete(QUESTION, stop=letter)
    assert stopped.text == told.text[: told.text.index(letter)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "a", "lm": "b"}, "lm and model name the same argument"),
        ({"server": {"keep": 2}}, "there is no base_url; add base_url="),
    ],
)
def test_arguments_that_contradict_each_other_are_rejected_before_loading(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        ParametricLLM(**options)
