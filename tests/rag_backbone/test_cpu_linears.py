"""Linear layers for few rows: the same numbers by other products, and the model is left as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from rag_backbone import few_rows
from rag_backbone.engine import Engine
from rag_backbone.few_rows import MOST, FewRowLinears, product_for, vector, weight_first
from rag_backbone.requests import Request
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def everywhere(monkeypatch):
    """Whatever the processor: the layers are exchanged."""
    monkeypatch.setattr(few_rows, "is_faster", lambda *_: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (1, 1, 32), (2, 32), (1, 3, 32), (8, 1, 32), (9, 32), (0, 32)])
@pytest.mark.usefixtures("everywhere")
def test_every_shape_gives_what_the_layer_gives(bias, shape):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 48, bias=bias))
    states = torch.randn(shape)
    expected = layer(states)
    with FewRowLinears(layer).on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(layer[0])
        found = layer(states)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "rows"), [(torch.bfloat16, 1), *((torch.float32, rows) for rows in range(1, MOST + 1))]
)
@pytest.mark.usefixtures("everywhere")
def test_products_are_as_exact_as_the_usual_one(dtype, rows):
    torch.manual_seed(0)
    weight, states = torch.randn(576, 1536).to(dtype), torch.randn(rows, 1536).to(dtype)
    product = product_for(dtype, CPU, rows)
    assert product is (weight_first if dtype == torch.float32 else vector)
    exact = states.double() @ weight.double().T
    usual = (functional.linear(states, weight).double() - exact).abs().max()
    assert (product(states, weight).double() - exact).abs().max() <= 1.5 * usual + 1e-5


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_the_engine_uses_them_for_few_tokens_and_leaves_the_model_alone(make, monkeypatch):
    model = make()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    prompts = [[5, 6, 7, 8, *range(9, 20 + i)] for i in range(3)]
    monkeypatch.setattr(few_rows, "product_for", lambda *_: None)
    usual = [Engine(model, tiny_tokenizer()).generate(Request(prompt, 6)) for prompt in prompts]
    monkeypatch.undo()
    monkeypatch.setattr(few_rows, "is_faster", lambda *_: True)
    rows = []

    def watched(states, weight):
        rows.append(len(states))
        return weight_first(states, weight)

    monkeypatch.setattr(few_rows, "product_for", lambda *given: watched if product_for(*given) else None)
    engine = Engine(model, tiny_tokenizer())
    assert engine.shares_steps
    rows.clear()
    found = engine.generate_batch([Request(prompt, 6) for prompt in prompts])
    assert [g.token_ids for g in found] == [g.token_ids for g in usual]
    assert rows == [3] * len(layers) * 5  # none for the prompts, all for each further token
    rows.clear()
    engine.generate(Request(prompts[0], 6))
    assert rows == [1] * len(rows)
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.usefixtures("everywhere")
def test_a_failing_forward_leaves_the_model_alone():
    model = tiny_llama()
    with pytest.raises(RuntimeError, match="stop"), FewRowLinears(model).on(torch.float32, CPU, 1):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.usefixtures("everywhere")
def test_layers_that_somebody_has_wrapped_or_subclassed_are_left_alone():
    class Quantised(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Quantised(4, 4), nn.Linear(4, 4))
    model[2].forward = lambda states: states * 0
    with FewRowLinears(model).on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(model[0])
        assert "forward" not in vars(model[1])
        assert not model[2](torch.ones(4)).any()
    assert "forward" in vars(model[2])


ELSEWHERE = [
    (torch.float16, "cpu", 1), (torch.float64, "cpu", 1), (torch.bfloat16, "cuda", 1), (torch.float32, "cuda", 1),
    (torch.float32, "cpu", 0), (torch.float32, "cpu", MOST + 1), (torch.bfloat16, "cpu", 2),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "device", "rows"), ELSEWHERE)
@pytest.mark.usefixtures("everywhere")
def test_elsewhere_they_are_not_used(dtype, device, rows):
    assert product_for(dtype, torch.device(device), rows) is None


def test_it_is_measured_once_for_like_numbers_of_rows(monkeypatch):
    few_rows.is_faster.cache_clear()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    times = iter([1.0, 0.5, 1.0, 0.9])
    monkeypatch.setattr(few_rows, "_seconds", lambda *_: next(times))
    assert product_for(torch.float32, CPU, 3) is weight_first
    assert product_for(torch.float32, CPU, 4) is weight_first
    assert product_for(torch.float32, CPU, 5) is None  # not clearly
    few_rows.is_faster.cache_clear()
