"""Reflection tokens, looked up in a tokenizer."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from langgraph_dynrag import LocalChatModel, SegmentSelection, create_dynamic_rag
from langgraph_dynrag.reflection.vocabulary import TOKENS
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.reflective import reflective_llama, reflective_tokenizer
from tests.tiny import tiny_llama, tiny_tokenizer


def lacking(*names):
    """Return the reflective model with a tokenizer that lacks some tokens."""
    whole = reflective_tokenizer()
    data = json.loads(whole.backend_tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in names]
    data["model"]["vocab"] = {(f"<{k}>" if k in names else k): v for k, v in data["model"]["vocab"].items()}
    from tokenizers import Tokenizer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
    )
    return LocalChatModel.from_causal_lm(CausalLM(reflective_llama(), tokenizer, name="lacking"))


@pytest.mark.parametrize("path", ["auto", "tokens"])
def test_a_partial_vocabulary_is_rejected_with_the_missing_tokens_when_the_graph_is_built(path, retriever):
    partial = lacking("[Irrelevant]", "[Utility:3]")
    with pytest.raises(ConfigurationError) as error:
        create_dynamic_rag(partial, retriever, preset="self_rag", selection=SegmentSelection(path))
    assert "lacking lacks 2 of 15 reflection tokens: [Irrelevant], [Utility:3]. " in str(error.value)
    assert "selection=SegmentSelection('classification')" in str(error.value)
    create_dynamic_rag(partial, retriever, preset="self_rag", selection=SegmentSelection("classification"))


def test_a_missing_vocabulary_is_rejected_if_tokens_are_requested(retriever):
    plain = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
    with pytest.raises(ConfigurationError, match="tiny lacks 15 of 15 reflection tokens") as error:
        create_dynamic_rag(plain, retriever, preset="self_rag", selection=SegmentSelection("tokens"))
    assert all(token in str(error.value) for token in TOKENS)


def test_tokens_beyond_the_models_outputs_count_as_missing(retriever):
    assert sorted(map(reflective_tokenizer().convert_tokens_to_ids, TOKENS)) == list(range(3, 18))
    whole, cut = (CausalLM(tiny_llama(vocab_size=n), reflective_tokenizer(), name=f"of {n}") for n in (18, 10))
    create_dynamic_rag(LocalChatModel.from_causal_lm(whole), retriever, preset="self_rag")
    with pytest.raises(ConfigurationError, match="of 10 lacks 8 of 15"):
        create_dynamic_rag(LocalChatModel.from_causal_lm(cut), retriever, preset="self_rag")
