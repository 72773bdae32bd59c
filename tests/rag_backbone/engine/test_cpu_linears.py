"""Linear layers on CPU: the weight-first product gives the same numbers, and the model is not modified."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from rag_backbone.engine import cpu_linears
from rag_backbone.engine.cpu_linears import MOST_ROWS, CPULinears, linear, pays, weight_first
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (1, 1, 32), (2, 32), (1, 3, 32), (8, 1, 32), (9, 32), (0, 32)])
def test_every_shape_gives_the_result_of_the_layer(bias, shape):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 48, bias=bias))
    states = torch.randn(shape)
    expected = layer(states)
    with CPULinears(layer).on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(layer[0])
        found = layer(states)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("rows", range(1, MOST_ROWS + 1))
def test_the_product_is_as_accurate_as_the_default_one(rows):
    torch.manual_seed(0)
    weight, states = torch.randn(576, 1536), torch.randn(rows, 1536)
    exact = states.double() @ weight.double().T
    usual = (functional.linear(states, weight).double() - exact).abs().max()
    # The number of partial sums depends on the processor; sums of a shorter type would be off by hundreds of times.
    assert (weight_first(states, weight).double() - exact).abs().max() <= 4 * usual + 1e-5


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_the_engine_uses_the_product_without_modifying_the_model(make, monkeypatch):
    model = make()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    prompts = [[5, 6, 7, 8, *range(9, 20 + i)] for i in range(3)]
    with monkeypatch.context() as usual_product:
        usual_product.setattr(cpu_linears, "pays", lambda *_: False)
        expected = [Engine(model, tiny_tokenizer()).generate(Request(prompt, 6)) for prompt in prompts]
    multiplied = []
    asked = cpu_linears.weight_first

    def watched(states, weight):
        multiplied.append(len(states))
        return asked(states, weight)

    monkeypatch.setattr(cpu_linears, "weight_first", watched)
    engine = Engine(model, tiny_tokenizer())
    alone = [engine.generate(Request(prompt, 6)) for prompt in prompts]
    assert multiplied.count(1) >= len(layers) * 5
    together = engine.generate_batch([Request(prompt, 6) for prompt in prompts])
    assert 3 in multiplied
    assert [g.token_ids for g in alone] == [g.token_ids for g in together] == [g.token_ids for g in expected]
    assert not any("forward" in vars(layer) for layer in layers)


def test_a_failing_forward_pass_leaves_the_model_unmodified():
    model = tiny_llama()
    with pytest.raises(RuntimeError, match="stop"), CPULinears(model).on(torch.float32, CPU, 1):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in model.modules())


def test_layers_that_are_wrapped_or_subclassed_are_left_alone():
    class Quantised(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Quantised(4, 4), nn.Linear(4, 4))
    model[2].forward = lambda states: states * 0
    with CPULinears(model).on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(model[0])
        assert "forward" not in vars(model[1])
        assert not model[2](torch.ones(4)).any()
    assert "forward" in vars(model[2])


def test_gradients_use_the_default_product():
    layer = nn.Linear(8, 4)
    states = torch.randn(2, 8, requires_grad=True)
    linear(states, layer.weight, layer.bias).sum().backward()
    assert torch.allclose(states.grad, layer.weight.sum(0).expand(2, 8))


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [(torch.float16, 1), (torch.bfloat16, 1), (torch.float64, 1), (torch.float32, 0), (torch.float32, MOST_ROWS + 1)],
)
def test_other_types_and_numbers_of_rows_use_the_default_product(dtype, rows):
    assert not pays(dtype, rows)


def test_layers_on_other_devices_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4))
    with CPULinears(model).on(torch.float32, torch.device("cuda"), 1):
        assert "forward" not in vars(model[0])
