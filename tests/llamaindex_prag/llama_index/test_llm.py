"""The language model of LlamaIndex: its adapters, its settings, and the references in its prompts."""

import logging

import pytest
from llama_index.core.schema import MetadataMode

from llamaindex_prag.llama_index import (
    ParametricLLM,
)
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import QUESTION


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
