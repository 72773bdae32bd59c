"""Tiny models of three families, and an engine for each."""

import pytest

from rag_backbone.engine.engine import Engine
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

FAMILIES = {"llama": tiny_llama, "qwen2": tiny_qwen2, "gemma3": tiny_gemma3}


@pytest.fixture(params=FAMILIES)
def model(request):
    return FAMILIES[request.param]()


@pytest.fixture
def engine(model):
    return Engine(model, tiny_tokenizer())
