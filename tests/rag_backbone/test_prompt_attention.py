"""Attention of a prompt's tokens as a few large products: the formula, wherever a model's mask is the causal one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_backbone import attention, prompt_attention, row_attention
from rag_backbone.engine import Engine
from rag_backbone.prompt_attention import attend_prompt, products_pay, sees_all_before
from rag_backbone.requests import Request
from rag_backbone.signals import Signals
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

FIXED, SHORT, LONG = list(range(3, 30)), [70, 71], [90 + i for i in range(23)]


def formula(query, key, value, scaling):
    """One query and one head at a time, in NumPy."""
    q, k, v = (part[0].double().numpy() for part in (query, key, value))
    (heads, n, _), (kv_heads, keys, _) = q.shape, k.shape
    output = np.zeros((n, heads, v.shape[2]))
    for head in range(heads):
        of = head // (heads // kv_heads)
        for i in range(n):
            seen = keys - n + i + 1
            scores = np.array([q[head, i] @ k[of, j] for j in range(seen)]) * scaling
            weights = np.exp(scores - scores.max())
            output[i, head] = weights @ v[of, :seen] / weights.sum()
    return torch.from_numpy(output)[None]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 12), st.sampled_from([1, 2, 5, 256]),
    st.sampled_from([1, 700, 1 << 20]),
)  # fmt: skip
def test_every_query_sees_all_keys_up_to_its_own(kv_heads, group, n, known, block, most):
    shapes = (kv_heads * group, n, 8), (kv_heads, known + n + 4, 8), (kv_heads, known + n + 4, 5)
    torch.manual_seed(n)
    query, key, value = (torch.randn(1, *shape, dtype=torch.float64) for shape in shapes)
    key[:, :, known + n :] = math.nan  # a buffer's spare room
    value[:, :, known + n :] = math.inf
    key, value = key[:, :, : known + n], value[:, :, : known + n]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(prompt_attention, "_BLOCK", block)
        patch.setattr(prompt_attention, "_MOST_BYTES", most)
        found = attend_prompt(query, key, value, 0.3)
        assert torch.allclose(found, formula(query, key, value, 0.3), atol=1e-12)
        half = [part.bfloat16() for part in (query, key, value)]
        found = attend_prompt(*half, 0.3)
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), formula(*half, 0.3), atol=5e-2)


def test_a_thread_uses_its_memory_again_in_either_mode():
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 6, 8)
    expected = formula(query, key, key, 1.0).float()
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            found = [attend_prompt(query, key, key, 1.0) for _ in range(2)]
        assert all(torch.allclose(one, expected, atol=1e-5) for one in found)


def test_masks_that_hide_more_or_less_are_told():
    causal = torch.ones(3, 7, dtype=torch.bool).tril(4)
    window = causal & ~torch.ones(3, 7, dtype=torch.bool).tril(1)
    both_ways = torch.ones(3, 7, dtype=torch.bool)
    for mask, plain in ((causal, True), (window, False), (both_ways, False)):
        assert sees_all_before(mask[None, None], 3, 7) == plain
        additive = torch.zeros(3, 7).masked_fill(~mask, torch.finfo(torch.float32).min)
        assert sees_all_before(additive[None, None], 3, 7) == plain
    assert not sees_all_before(causal[None, None], 3, 8)
    assert sees_all_before(None, 7, 7)  # PyTorch's own pattern begins at the first key
    assert not sees_all_before(None, 3, 7)


def counted(monkeypatch, *, pays):
    """Let products pay or not; gives how many layers are computed by them."""
    calls = []

    def attended(*states):
        calls.append(states[0].shape)
        return attend_prompt(*states)

    for module in (attention, row_attention):
        monkeypatch.setattr(module, "attend_prompt", attended)
    monkeypatch.setattr(row_attention, "products_pay", lambda dtype: pays and dtype == torch.bfloat16)
    return calls


def error(scored, exact):
    """Mean deviations of log-probabilities and attention."""
    pairs = (scored.logprobs, exact.logprobs), (scored.attention, exact.attention)
    return torch.tensor([(a - b).abs().mean() for a, b in pairs])


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_model_says_the_same_with_them(make, kernel, monkeypatch):
    model = make(attn_implementation=kernel).to(torch.bfloat16)
    assert model.config._attn_implementation == kernel
    asked = [FIXED[:6], [*FIXED, *LONG]]

    def scores():
        engine = Engine(model, tiny_tokenizer())
        engine.signals  # noqa: B018 - tries the model out, by both ways
        calls.clear()
        return [engine.score(ids[:-3], ids[-3:], attention=True) for ids in asked]

    found = {}
    for pays in (True, False):
        calls = counted(monkeypatch, pays=pays)
        found[pays] = scores()
        layers = model.config.num_hidden_layers
        # Windows of 8 tokens hide nothing of the first six, and much of the others: there one layer sees all.
        expected = layers + (1 if make is tiny_gemma3 else layers)
        assert len(calls) == (expected if pays else 0)
    assert model.config._attn_implementation == kernel
    model.float()
    for with_products, without, exact in zip(found[True], found[False], scores(), strict=True):
        assert (error(with_products, exact) <= 2 * error(without, exact) + torch.tensor([0.05, 0.005])).all()


def test_prompts_that_share_a_forward_use_them_too(monkeypatch):
    calls = counted(monkeypatch, pays=True)
    engine = Engine(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    engine.generate(Request(FIXED, 1))
    asked = [Request([*FIXED, *own], 4, signals=Signals(attention=True)) for own in (SHORT, LONG, [80, 81, 82])]
    calls.clear()
    together = engine.generate_batch(asked)
    assert {shape[2] for shape in calls} >= {2, 3, 23}
    for request, generation in zip(asked, together, strict=True):
        exact = torch.log_softmax(engine.model(torch.tensor([request.prompt])).logits[0, -1].float(), -1)
        assert abs(generation.steps[0].logprob - exact[generation.token_ids[0]].item()) < 0.3


def test_other_types_and_gradients_keep_the_kernel(monkeypatch):
    assert not products_pay(torch.float32)
    calls = counted(monkeypatch, pays=True)
    Engine(tiny_llama(), tiny_tokenizer()).generate(Request([*FIXED, *LONG], 2))
    assert not calls
    step = row_attention.Step(0, products=True)
    query = torch.randn(1, 4, 3, 8).bfloat16()
    assert not step.sees_all_before("sdpa", None, query, query)  # gradients may be wanted
    with torch.inference_mode():
        assert step.sees_all_before("sdpa", None, query, query)
        assert not step.sees_all_before("flex_attention", None, query, query)
        assert not step.sees_all_before("sdpa", None, query, torch.cat((query, query), 2))
