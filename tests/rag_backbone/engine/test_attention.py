"""Trying out what a model's attention supports."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import SignalUnavailableError
from rag_backbone.loading.causal_lm import CausalLM
from tests.rag_backbone.engine.references import PROMPT, eager
from tests.tiny import _sizes, tiny_llama, tiny_tokenizer


def test_queries_during_the_try_out_wait_for_its_result(monkeypatch):
    """The first half-precision forward pass tries out the model; other threads must not read that as a refusal."""
    engine = Engine(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    begun, go_on = threading.Event(), threading.Event()
    original = AttentionPatch._reproduces_the_kernel

    def slow(switch):
        begun.set()
        go_on.wait(10)
        return original(switch)

    monkeypatch.setattr(AttentionPatch, "_reproduces_the_kernel", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.generate, Request([1, 2, 3], 3))
        begun.wait(10)
        second = pool.submit(lambda: engine.signals)
        go_on.set()
        assert "attention" in second.result()
        assert len(first.result().token_ids) == 3


def test_an_interrupted_try_out_is_repeated(monkeypatch):
    engine = Engine(tiny_llama(), tiny_tokenizer())

    def interrupted(_switch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AttentionPatch, "_reproduces_the_kernel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.signals  # noqa: B018
    assert "attention" in engine.signals
    assert engine.shares_steps


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, True),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False),
    ],
)
def test_sequences_are_not_batched_if_positions_depend_on_the_longest_one(changes, shares):
    engine = Engine(tiny_llama(**changes), tiny_tokenizer())
    assert engine.shares_steps == shares
    assert engine._runner.call.switch.prefills_rows == shares
    assert "attention" in engine.signals
    # The results are the same in a batch and alone.
    asked = [Request([5, 6, 7 + i], 6) for i in range(2)]
    together = engine.generate_batch(asked)
    assert [g.token_ids for g in together] == [engine.generate(r).token_ids for r in asked]


def test_attention_is_not_offered_without_a_plain_softmax():
    """Gemma 2 caps its attention scores."""
    torch.manual_seed(0)
    config = Gemma2Config(**_sizes(), sliding_window=16, attn_logit_softcapping=1.0, query_pre_attn_scalar=8)
    lm = CausalLM(Gemma2ForCausalLM(config).eval(), tiny_tokenizer())
    assert lm.engine.signals == {"logprob", "entropy", "hidden_state"}
    with pytest.raises(SignalUnavailableError, match="plain softmax"):
        lm.engine.generate(Request(PROMPT, 3, signals=Signals(attention=True)))
    assert lm.engine.generate(Request(PROMPT, 3, signals=Signals(entropy=True))).steps[0].entropy is not None


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_the_last_queries_of_the_last_layer_are_recorded(kernel):
    model = tiny_llama()
    model.set_attn_implementation(kernel)
    patch = AttentionPatch(model)
    with torch.inference_mode(), patch.on(queries=2) as step:
        model(torch.tensor([[5, 6, 7, 8]]))
    (weights,) = step.weights
    assert (weights[0] - eager(model, [5, 6, 7, 8]).attentions[-1][0, :, -2:]).abs().max() < 1e-5


def test_the_models_own_attention_function_is_restored_after_an_error():
    model = tiny_llama()
    patch, before = AttentionPatch(model), model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), patch.on(queries=1) as step:
        assert model.config._attn_implementation != before
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before
    model(torch.tensor([[5, 6]]))
    assert not step.weights


@pytest.mark.parametrize(("dtype", "ours"), [(torch.float32, False), (torch.bfloat16, True)])
def test_single_queries_are_computed_here_only_in_half_precision(dtype, ours):
    assert AttentionPatch(tiny_llama().to(dtype)).attends_itself is ours
