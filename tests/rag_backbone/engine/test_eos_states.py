"""Sampled continuations that share a prompt, compared with plain forward passes over each sample's whole text."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from rag_backbone.engine.engine import Engine
from rag_backbone.engine.eos_states import EOSStatesRequest
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.errors import AdapterError, ConfigurationError, ContextWindowError, SignalUnavailableError
from tests.tiny import tiny_gemma3, tiny_llama, tiny_tokenizer

PROMPT = tiny_tokenizer()("The lighthouse keeper wrote a letter. Who built the bridge?").input_ids
HOT = Sampling(temperature=1.0, top_k=50, top_p=0.9, seed=3)
END = 2


def request(**changes):
    return EOSStatesRequest(
        **{"prompt": PROMPT, "hidden_state": 1, "samples": 6, "max_new_tokens": 12, "sampling": HOT, **changes}
    )


def state_at_end(model, ids, layer=1):
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    return out.hidden_states[layer + 1][0, -1].float()


def test_states_match_plain_forward_passes_over_each_sample(model):
    found = Engine(model, tiny_tokenizer()).end_states(request())
    assert found.states.shape == (6, 32)
    assert len(set(found.token_ids)) > 1
    for ids, text, state in zip(found.token_ids, found.texts, found.states, strict=True):
        expected = state_at_end(model, [*PROMPT, *ids, END])
        assert (state - expected).abs().max() < 1e-3
        assert text == tiny_tokenizer().decode(ids) or "\ufffd" in tiny_tokenizer().decode(ids)


def test_samples_longer_than_a_sliding_window_match_too():
    model = tiny_gemma3()  # a window of 8
    found = Engine(model, tiny_tokenizer()).end_states(request(max_new_tokens=30))
    assert max(map(len, found.token_ids)) > 8
    for ids, state in zip(found.token_ids, found.states, strict=True):
        assert (state - state_at_end(model, [*PROMPT, *ids, END])).abs().max() < 1e-3


def test_every_sample_at_temperature_zero_is_the_greedy_text(model):
    engine = Engine(model, tiny_tokenizer())
    found = engine.end_states(request(sampling=Sampling()))
    # The twelfth token is replaced by the end-of-sequence token.
    assert set(found.token_ids) == {tuple(engine.generate(Request(PROMPT, 11)).token_ids)}
    assert (found.states - found.states[0]).abs().max() < 1e-5 * found.states.abs().max()


def test_samples_are_truncated_by_the_caller_and_the_state_belongs_to_the_truncated_text(model):
    def two_words(text):
        return None if len(text.split()) < 4 else text.index(text.split()[2], len(text.split()[0]))

    found = Engine(model, tiny_tokenizer()).end_states(request(ends_at=two_words, max_new_tokens=40))
    cut = 0
    for ids, text, state in zip(found.token_ids, found.texts, found.states, strict=True):
        assert (state - state_at_end(model, [*PROMPT, *ids, END])).abs().max() < 1e-3
        cut += len(text.split()) <= 3 and len(ids) < 39
    assert cut > 0


def test_the_prompt_is_prefilled_once_for_all_samples_and_stays_cached():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    engine.generate(Request(PROMPT, 5))
    found = engine.end_states(request())
    assert found.counts.cached_tokens >= len(PROMPT) - 1
    fed = sum(len(ids) + 2 for ids in found.token_ids)  # the prompt's last token, the sample, the end token
    assert fed <= found.counts.forward_tokens <= fed + 6
    assert found.counts.forwards <= 13
    again = engine.generate(Request(PROMPT, 5))
    assert again.counts.cached_tokens >= len(PROMPT) - 1
    assert again.token_ids == Engine(tiny_llama(), tiny_tokenizer()).generate(Request(PROMPT, 5)).token_ids


def test_the_same_seed_gives_the_same_samples_and_another_seed_different_ones():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    first = engine.end_states(request())
    assert engine.end_states(request()).token_ids == first.token_ids
    other = engine.end_states(request(sampling=Sampling(1.0, 0.9, 50, seed=4)))
    assert other.token_ids != first.token_ids


def test_samples_that_end_immediately_are_empty_and_have_a_state():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    found = engine.end_states(request(max_new_tokens=1))
    assert found.token_ids == ((),) * 6
    assert (found.states - state_at_end(engine.model, [*PROMPT, END])).abs().max() < 1e-3


def test_a_prompt_of_one_token_works_without_sharing():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    found = engine.end_states(request(prompt=PROMPT[:1]))
    for ids, state in zip(found.token_ids, found.states, strict=True):
        assert (state - state_at_end(engine.model, [PROMPT[0], *ids, END])).abs().max() < 1e-3


def test_invalid_requests_are_refused_before_any_work(model):
    engine = Engine(model, tiny_tokenizer())
    for options, error, message in (
        ({"samples": 0}, ConfigurationError, "samples is 0; at least 1"),
        ({"max_new_tokens": 0}, ConfigurationError, "max_new_tokens is 0"),
        ({"prompt": []}, ConfigurationError, "the prompt is empty"),
        ({"hidden_state": 99}, SignalUnavailableError, "layers 0 to 2"),
        ({"prompt": [5] * 5000}, ContextWindowError, "context window"),
        ({"adapters": object()}, AdapterError, "engine.attach"),
    ):
        with pytest.raises(error, match=message):
            engine.end_states(request(**options))
    # Only trying out the model took forward passes, which are not counted.
    assert engine.counts.forwards == 0


def test_a_model_whose_attention_is_not_recognised_samples_one_sequence_after_the_other():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from tests.tiny import _sizes

    sizes = {**_sizes(), "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "sliding_window": 64}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes)).float().eval()
    found = Engine(model, tiny_tokenizer()).end_states(request())
    for ids, state in zip(found.token_ids, found.states, strict=True):
        assert (state - state_at_end(model, [*PROMPT, *ids, END])).abs().max() < 1e-3


def test_concurrent_requests_share_forward_passes_and_draw_the_same_samples():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    prompts = [[5 + i, *PROMPT] for i in range(4)]
    ready = Barrier(4)

    def sampled(prompt):
        return engine.end_states(request(prompt=prompt, samples=3, max_new_tokens=60))

    def sampled_with_others(prompt):
        ready.wait(60)
        return sampled(prompt)

    first = engine.counts.forwards
    alone = [sampled(p) for p in prompts]
    before = engine.counts.forwards
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sampled_with_others, prompts))
    assert [found.token_ids for found in together] == [found.token_ids for found in alone]
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.states, expected.states, atol=1e-4, rtol=1e-3)
    assert engine.counts.forwards - before < 0.9 * (before - first)  # as many as before if nothing were shared


def test_only_the_prompt_stays_cached():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    found = engine.end_states(request())
    assert [sequence.ids for _, sequence in engine.prefixes.entries()] == [PROMPT]
    assert max(map(len, found.token_ids)) > 0
