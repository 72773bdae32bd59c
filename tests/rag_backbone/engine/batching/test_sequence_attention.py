"""Attention of a single query in half precision, and trying out whether a model supports it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.batching.sequence_attention import attend_one
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer


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


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_a_single_query_in_half_precision_matches_the_formula(make):
    """The formula is `softmax(q K^T * scaling) V`, computed by hand in float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, h, n, 8).bfloat16() for h, n in ((6, 1), (2, 11), (2, 11)))
    output, weights = attend_one(query, key, value, 0.3)
    for head in range(6):
        q, k, v = query[0, head, 0].double(), key[0, head // 3].double(), value[0, head // 3].double()
        exact = torch.softmax((k @ q) * 0.3, 0)
        assert torch.allclose(weights[0, head, 0].double(), exact, atol=1e-6)
        assert torch.allclose(output[0, 0, head].double(), exact @ v, atol=2e-2)
    model = make().to(torch.bfloat16)
    engine = Engine(model, tiny_tokenizer())
    found = engine.generate(Request([5, 6, 7, 8], max_new_tokens=12, signals=Signals(attention=True)))
    ids = torch.tensor([[5, 6, 7, 8, *found.token_ids]])
    with torch.inference_mode():
        logits = model.float()(input_ids=ids).logits[0, 3:-1]
    for step, row in zip(found.steps, logits, strict=True):
        assert abs(step.logprob - torch.log_softmax(row, -1)[step.token_id].item()) < 0.5  # bfloat16
        assert step.attention.shape[1] == 4 + step.index
        assert torch.allclose(step.attention.sum(-1), torch.ones(step.attention.shape[0]), atol=1e-4)


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
