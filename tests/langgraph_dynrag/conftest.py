"""What the tests of dynamic RAG share."""

import pytest

from langgraph_dynrag import LocalChatModel
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def chat():
    """A tiny random model with an engine of its own, so that its counts and caches start empty."""
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
