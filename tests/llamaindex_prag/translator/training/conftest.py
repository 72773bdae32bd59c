"""Fixtures: a tiny model and a corpus of lessons, one for all tests of a module."""

import pytest

from llamaindex_prag.translator.training.corpus import Corpus, split
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.translator.training.lessons import LESSONS
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return split(LESSONS, validation=3)
