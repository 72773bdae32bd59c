"""Attention of a prompt's tokens: the formula, both ways, wherever a model's mask is the causal one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rag_backbone import attention, prompt_attention, row_attention
from rag_backbone.engine import Engine
from rag_backbone.prompt_attention import attend_prompt, by_kernel, by_products, is_for, products_pay, sees_all_before
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
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 12), st.sampled_from([1, 2, 5, 384]),
    st.sampled_from([1, 700, 1 << 20]), st.booleans(),
)  # fmt: skip
def test_every_query_sees_all_keys_up_to_its_own(kv_heads, group, n, known, block, most, products):
    shapes = (kv_heads * group, n, 8), (kv_heads, known + n + 4, 8), (kv_heads, known + n + 4, 8)
    torch.manual_seed(n)
    query, key, value = (torch.randn(1, *shape, dtype=torch.float64) for shape in shapes)
    query = query.transpose(1, 2).contiguous().transpose(1, 2)  # as models give it
    key[:, :, known + n :] = math.nan  # a buffer's spare room
    value[:, :, known + n :] = math.inf
    key, value = key[:, :, : known + n], value[:, :, : known + n]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(prompt_attention, "_BLOCK", block)
        patch.setattr(prompt_attention, "_MOST_BYTES", most)
        patch.setattr(prompt_attention, "products_pay", lambda _: products)
        found = attend_prompt(query, key, value, 0.3)
        assert torch.allclose(found, formula(query, key, value, 0.3), atol=1e-12)
        for dtype, most_off in ((torch.bfloat16, 5e-2), (torch.float16, 1e-2)):
            half = [part.to(dtype) for part in (query, key, value)]
            found = attend_prompt(*half, 0.3)
            assert found.dtype == dtype
            assert torch.allclose(found.double(), formula(*half, 0.3), atol=most_off)


@pytest.mark.parametrize("attend", [by_kernel, by_products])
def test_a_thread_uses_its_memory_again_in_either_mode(attend):
    asked = []
    for heads, n, keys in ((4, 3, 6), (4, 2, 9), (8, 3, 7), (4, 70, 300), (4, 3, 6)):  # masks of other sizes and groups
        query, key = torch.randn(1, heads, n, 8), torch.randn(1, 2, keys, 8)
        asked.append(((query, key, key, 1.0), formula(query, key, key, 1.0).float()))
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            found = [(attend(*states), expected) for states, expected in asked]
        assert all(torch.allclose(one, expected, atol=1e-5) for one, expected in found)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 90), st.integers(0, 700), st.sampled_from([1, 2, 3]))
def test_in_float32_it_is_what_the_kernel_gives(n, known, group):
    torch.manual_seed(n)
    query, key, value = (torch.randn(1, heads, k, 16) for heads, k in ((2 * group, n), (2, known + n), (2, known + n)))
    sees = torch.ones(n, known + n, dtype=torch.bool).tril(known)
    several = [part.repeat_interleave(group, 1) for part in (key, value)]
    with torch.inference_mode():
        usual = functional.scaled_dot_product_attention(query, *several, attn_mask=sees, scale=0.25)
        assert torch.allclose(attend_prompt(query, key, value, 0.25), usual.transpose(1, 2), rtol=0, atol=2e-6)


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


def counted(monkeypatch, *, used):
    """Let it be used or not; gives the shapes of queries that are computed by it."""
    calls = []

    def attended(*states):
        calls.append(states[0].shape)
        return attend_prompt(*states)

    for module in (attention, row_attention):
        monkeypatch.setattr(module, "attend_prompt", attended)
        monkeypatch.setattr(module, "is_for", lambda *states: used and is_for(*states))
    return calls


def error(scored, exact):
    """Mean deviations of log-probabilities and attention."""
    pairs = (scored.logprobs, exact.logprobs), (scored.attention, exact.attention)
    return torch.tensor([(a - b).abs().mean() for a, b in pairs])


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("products", [True, False])
def test_a_model_says_the_same_with_it(make, kernel, dtype, products, monkeypatch):
    monkeypatch.setattr(prompt_attention, "products_pay", lambda _: products)
    model = make(attn_implementation=kernel).to(dtype)
    assert model.config._attn_implementation == kernel
    asked = [FIXED[:6], [*FIXED, *LONG]]

    def scores():
        engine = Engine(model, tiny_tokenizer())
        engine.signals  # noqa: B018 - tries the model out, by both ways
        calls.clear()
        return [engine.score(ids[:-3], ids[-3:], attention=True) for ids in asked]

    found = {}
    for used in (True, False):
        calls = counted(monkeypatch, used=used)
        found[used] = scores()
        layers = model.config.num_hidden_layers
        # Windows of 8 tokens hide nothing of the first six, and much of the others: there one layer sees all.
        expected = layers + (1 if make is tiny_gemma3 else layers)
        assert len(calls) == (expected if used else 0)
    assert model.config._attn_implementation == kernel
    if dtype == torch.float32:
        for used, without in zip(found[True], found[False], strict=True):
            assert torch.allclose(used.logprobs, without.logprobs, atol=1e-5)
            assert torch.allclose(used.attention, without.attention, atol=1e-5)
        return
    model.float()
    for used, without, exact in zip(found[True], found[False], scores(), strict=True):
        assert (error(used, exact) <= 2 * error(without, exact) + torch.tensor([0.05, 0.005])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_that_share_a_forward_use_it_too(dtype, monkeypatch):
    calls = counted(monkeypatch, used=True)
    engine = Engine(tiny_llama().to(dtype), tiny_tokenizer())
    engine.generate(Request(FIXED, 1))
    asked = [Request([*FIXED, *own], 4, signals=Signals(attention=True)) for own in (SHORT, LONG, [80, 81, 82])]
    calls.clear()
    together = engine.generate_batch(asked)
    assert {shape[2] for shape in calls} >= {2, 3, 23}
    for request, generation in zip(asked, together, strict=True):
        exact = torch.log_softmax(engine.model(torch.tensor([request.prompt])).logits[0, -1].float(), -1)
        assert abs(generation.steps[0].logprob - exact[generation.token_ids[0]].item()) < 0.3


def test_other_types_widths_devices_and_gradients_keep_the_kernel():
    key = torch.randn(1, 2, 3, 8)
    assert is_for(key, key)
    assert is_for(key.bfloat16(), key.bfloat16())
    assert not is_for(key.double(), key.double())
    assert not is_for(key, key[..., :5])
    assert not is_for(key.to("meta"), key.to("meta"))
    assert not products_pay(torch.float32)
    step = row_attention.Step(0, prompts=True)
    assert not step.attends_prompt("sdpa", None, key, key, key)  # gradients may be wanted
    with torch.inference_mode():
        assert step.attends_prompt("sdpa", None, key, key, key)
        assert not step.attends_prompt("flex_attention", None, key, key, key)
        assert not step.attends_prompt("sdpa", None, key, torch.cat((key, key), 2), torch.cat((key, key), 2))
        assert not row_attention.Step(0).attends_prompt("sdpa", None, key, key, key)


def test_a_lone_query_in_float32_keeps_the_kernel(monkeypatch):
    calls = counted(monkeypatch, used=True)
    engine = Engine(tiny_llama(), tiny_tokenizer())
    engine.generate(Request([*FIXED, *LONG], 5))
    layers = engine.model.config.num_hidden_layers
    assert [shape[2] for shape in calls[-layers:]] == [len(FIXED) + len(LONG)] * layers
