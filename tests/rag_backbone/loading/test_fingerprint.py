"""The fingerprint of a model: what changes it, and what does not."""

import torch

from rag_backbone.loading.causal_lm import CausalLM
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
