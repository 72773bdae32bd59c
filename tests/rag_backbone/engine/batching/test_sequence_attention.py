"""Attention of a single query in half precision."""

import pytest
import torch

from rag_backbone.engine.batching.sequence_attention import attend_one
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer


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
