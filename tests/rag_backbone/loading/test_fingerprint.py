"""The fingerprint of a model: what changes it, and what does not."""

import copy

import torch

from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.fingerprint import model_fingerprint
from tests.tiny import tiny_llama, tiny_tokenizer


def test_the_fingerprint_changes_with_weights_config_and_tokenizer():
    base = CausalLM(tiny_llama(), tiny_tokenizer()).fingerprint
    other = tiny_llama()
    with torch.no_grad():
        other.model.layers[2].mlp.up_proj.weight[0, 0] += 1
    assert CausalLM(other, tiny_tokenizer()).fingerprint != base
    assert CausalLM(tiny_llama(rms_norm_eps=1e-3), tiny_tokenizer()).fingerprint != base
    template = tiny_tokenizer().chat_template
    try:
        tiny_tokenizer().chat_template = template + " "
        assert CausalLM(tiny_llama(), tiny_tokenizer()).fingerprint != base
    finally:
        tiny_tokenizer().chat_template = template


def test_the_dtype_and_the_origin_of_a_model_do_not_change_its_fingerprint():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    first = model_fingerprint(model, tokenizer)
    model.config._name_or_path = "/somewhere/else"
    model.config.use_cache = False
    assert model_fingerprint(model.to(torch.bfloat16), tokenizer) == first
    assert len(bytes.fromhex(first)) == 32


def test_padding_and_truncation_of_an_earlier_call_do_not_change_the_fingerprint():
    model, tokenizer = tiny_llama(), copy.deepcopy(tiny_tokenizer())
    first = model_fingerprint(model, tokenizer)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=7)
    assert model_fingerprint(model, tokenizer) == first
    tokenizer.add_tokens(["<|new|>"])
    assert model_fingerprint(model, tokenizer) != first


def test_exchanging_two_parameters_of_one_shape_changes_the_fingerprint():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    first = model_fingerprint(model, tokenizer)
    mlp = model.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj
    assert model_fingerprint(model, tokenizer) != first
