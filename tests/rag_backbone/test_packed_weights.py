"""Packed copies: the products of the weights that they are of, and never those of others."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional

from rag_backbone import cpu_linears, packed_weights
from rag_backbone.causal_lm import CausalLM
from rag_backbone.engine import Engine
from rag_backbone.packed_weights import PackedWeights, packed, packed_of, times_packed
from rag_backbone.requests import Request
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPT = [5, 6, 7, 8, 9, 10]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Whatever the processor: packed weights are used."""
    if packed(torch.ones(8, 8)) is None:
        pytest.skip("this PyTorch packs no weights")
    monkeypatch.setattr(cpu_linears, "fastest", lambda *_: ("packed", "usual"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64])
def test_they_give_the_usual_product(dtype, rows):
    torch.manual_seed(0)
    weight, states, bias = (torch.randn(shape).to(dtype) for shape in ((96, 64), (rows, 64), (96,)))
    found = times_packed(states, packed(weight), bias)
    assert found.dtype == dtype
    exact = functional.linear(states.double(), weight.double(), bias.double())
    usual = functional.linear(states, weight, bias).double() - exact
    if rows:
        assert (found.double() - exact).abs().max() <= 1.5 * usual.abs().max() + 1e-5
    assert found.shape == exact.shape


@pytest.mark.parametrize("weight", [torch.ones(4, 4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float16)])
def test_of_other_types_there_are_none(weight):
    assert packed(weight) is None


def test_a_limit_leaves_layers_out_and_a_copy_goes_with_its_weight():
    layers = [nn.Linear(16, 16, bias=False) for _ in range(3)]
    held = PackedWeights(layers, 2 * 16 * 16 * 4)
    assert not held.refresh()
    assert [packed_of(layer.weight) is not None for layer in layers] == [True, True, False]
    assert packed_of(nn.Parameter(layers[0].weight.data)) is None  # the same numbers, another weight
    ids = [id(layer.weight) for layer in layers]
    del layers, held
    gc.collect()
    assert not set(ids) & set(packed_weights._copies)


def in_place(weight):
    with torch.no_grad():
        weight.mul_(1.5)


def behind_its_back(weight):
    weight.data += 0.5


def other_memory(weight):
    weight.data = weight.data * 1.5


@pytest.mark.parametrize("change", [in_place, behind_its_back, other_memory])
def test_weights_that_somebody_changed_are_noticed_before_the_next_generation(change):
    model, prompt = tiny_llama(), PROMPT
    engine = Engine(model, tiny_tokenizer())
    before = engine.generate(Request(prompt, 8))
    change(model.model.layers[0].mlp.up_proj.weight)
    expected = Engine(tiny_like(model), tiny_tokenizer()).generate(Request(prompt, 8))
    found = engine.generate(Request(prompt, 8))
    assert found.token_ids == expected.token_ids
    assert [s.logprob for s in found.steps] == pytest.approx([s.logprob for s in expected.steps], abs=1e-4)
    assert [s.logprob for s in found.steps] != pytest.approx([s.logprob for s in before.steps], abs=1e-4)
    assert found.counts.cached_tokens == 0  # the prompt's keys were those of the old weights
    assert engine.generate(Request(prompt, 8)).counts.cached_tokens == len(prompt) - 1


def tiny_like(model):
    """Another model with the same weights."""
    other = tiny_llama()
    other.load_state_dict(model.state_dict())
    return other


def test_without_memory_for_them_there_are_none():
    lm = CausalLM(tiny_llama(), tiny_tokenizer())
    lm.packed_bytes = 0
    lm.engine.generate(Request(PROMPT, 2))
    assert not any(packed_of(m.weight) is not None for m in lm.model.modules() if isinstance(m, nn.Linear))
