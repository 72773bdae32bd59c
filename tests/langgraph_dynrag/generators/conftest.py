"""What the tests of generators share."""

import pytest

from langgraph_dynrag import LocalChatModel
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture(scope="session")
def local():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
