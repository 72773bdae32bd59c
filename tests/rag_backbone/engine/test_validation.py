"""Requests that are refused before any forward pass."""

import pytest

from rag_backbone.engine.requests import Request
from rag_backbone.engine.validation import check_adapters, check_signal, check_window
from rag_backbone.errors import AdapterError, ContextWindowError, SignalUnavailableError
from tests.rag_backbone.engine.references import PROMPT
from tests.rag_backbone.engine.shift import Shift


def test_adapters_without_a_backend_are_refused(engine):
    with pytest.raises(AdapterError, match="attach"):
        engine.generate(Request(PROMPT, 3, adapters=Shift(1.0)))


def test_a_prompt_longer_than_the_context_window_is_refused_before_any_work(engine):
    before = engine.counts
    with pytest.raises(ContextWindowError, match="2048"):
        engine.generate(Request([5] * 2048, 1))
    with pytest.raises(ContextWindowError):
        engine.score([5] * 2000, [6] * 100)
    assert engine.counts == before


def test_a_full_context_window_is_allowed_and_one_more_token_is_not():
    check_window(64, 64)
    with pytest.raises(ContextWindowError, match=r"65 tokens do not fit into the model's context window of 64"):
        check_window(64, 65)


def test_a_missing_signal_is_named_with_those_that_are_available(tiny_lm):
    check_signal("entropy", frozenset({"entropy"}), tiny_lm.model)
    message = r"LlamaForCausalLM cannot provide the signal 'attention'.*Available: entropy, logprob\."
    with pytest.raises(SignalUnavailableError, match=message):
        check_signal("attention", frozenset({"logprob", "entropy"}), tiny_lm.model)


def test_no_adapters_need_no_backend():
    check_adapters(None, None)
    with pytest.raises(AdapterError, match=r"call engine\.attach\(backend\) first"):
        check_adapters(Shift(1.0), None)
