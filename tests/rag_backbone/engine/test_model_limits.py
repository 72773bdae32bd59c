"""End-of-sequence tokens and context windows of models and tokenizers."""

import pytest
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from rag_backbone.engine.model_limits import context_window_of, end_ids_of
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from tests.tiny import tiny_llama, tiny_tokenizer


def test_an_answer_ends_at_the_context_window(engine):
    made = engine.generate(Request([5] * 2040, 50, sampling=Sampling(logit_bias={2: -1e9})))
    assert len(made.steps) == 8
    assert made.finish_reason == "length"


@pytest.mark.parametrize(("of_model", "expected"), [(None, {2}), (7, {2, 7}), ([7, 2, 9], {2, 7, 9})])
def test_the_end_tokens_of_model_and_tokenizer_are_joined(of_model, expected):
    model = tiny_llama()
    model.generation_config.eos_token_id = of_model
    assert end_ids_of(model, tiny_tokenizer()) == expected


def test_the_window_is_the_models_if_it_has_one():
    assert context_window_of(tiny_llama(max_position_embeddings=77), tiny_tokenizer()) == 77


@pytest.mark.parametrize(("limit", "expected"), [(512, 512), (10**30, 1 << 30)])
def test_without_position_embeddings_the_window_is_the_tokenizers(limit, expected):
    model = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=8, num_hidden_layers=1))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer, model_max_length=limit)
    assert context_window_of(model, tokenizer) == expected
