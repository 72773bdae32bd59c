"""Linear layers on a CPU: the same numbers by other products, and the model is left as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from rag_backbone import cpu_linears
from rag_backbone.cpu_linears import MOST_FEW, PRODUCTS, CPULinears, fastest, linear
from rag_backbone.engine import Engine
from rag_backbone.requests import Request
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

CPU = torch.device("cpu")
KINDS = [("weight_first", "weight_first"), ("packed", "usual"), ("packed", "weight_first")]


@pytest.fixture(params=KINDS, ids=lambda pair: f"{pair[0]}, {pair[1]}")
def kinds(request, monkeypatch):
    """Whatever the processor: these products."""
    monkeypatch.setattr(cpu_linears, "fastest", lambda _, rows: request.param if rows else ("usual", "usual"))
    return request.param


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("packed_bytes", [0, 1 << 20])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (1, 1, 32), (2, 32), (1, 3, 32), (8, 1, 32), (9, 32), (0, 32)])
@pytest.mark.usefixtures("kinds")
def test_every_shape_gives_what_the_layer_gives(bias, packed_bytes, shape):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 48, bias=bias))
    states = torch.randn(shape)
    expected = layer(states)
    linears = CPULinears(layer, packed_bytes)
    linears.refresh()
    with linears.on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(layer[0])
        found = layer(states)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "dtype", "rows"),
    [("vector", torch.bfloat16, 1), *(("weight_first", torch.float32, rows) for rows in range(1, MOST_FEW + 1))],
)
def test_products_are_as_exact_as_the_usual_one(kind, dtype, rows):
    torch.manual_seed(0)
    weight, states = torch.randn(576, 1536).to(dtype), torch.randn(rows, 1536).to(dtype)
    exact = states.double() @ weight.double().T
    usual = (functional.linear(states, weight).double() - exact).abs().max()
    # Kernels keep more or fewer partial sums, by processor; with sums of a shorter type it would be hundreds of times.
    assert (PRODUCTS[kind](states, weight).double() - exact).abs().max() <= 4 * usual + 1e-5


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_the_engine_uses_them_and_leaves_the_model_alone(make, monkeypatch, kinds):
    model = make()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    prompts = [[5, 6, 7, 8, *range(9, 20 + i)] for i in range(3)]
    with monkeypatch.context() as usual_ones:
        usual_ones.setattr(cpu_linears, "fastest", lambda *_: ("usual", "usual"))
        usual = [Engine(model, tiny_tokenizer()).generate(Request(prompt, 6)) for prompt in prompts]
    rows, asked = [], cpu_linears.fastest

    def watched(dtype, count):
        rows.append(count)
        return asked(dtype, count)

    engine = Engine(model, tiny_tokenizer())
    assert engine.shares_steps
    engine.generate(Request(prompts[0], 1))
    monkeypatch.setattr(cpu_linears, "fastest", watched)
    found = engine.generate_batch([Request([*prompt, 30], 6) for prompt in prompts])
    assert rows.count(3) >= len(layers) * 5
    monkeypatch.setattr(cpu_linears, "fastest", asked)
    expected = [Engine(model, tiny_tokenizer()).generate(Request([*prompt, 30], 6)) for prompt in prompts]
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    alone = [engine.generate(Request(prompt, 6)) for prompt in prompts]
    assert [g.token_ids for g in alone] == [g.token_ids for g in usual]
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.usefixtures("kinds")
def test_a_failing_forward_leaves_the_model_alone():
    model = tiny_llama()
    with pytest.raises(RuntimeError, match="stop"), CPULinears(model).on(torch.float32, CPU, 1):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.usefixtures("kinds")
def test_layers_that_somebody_has_wrapped_or_subclassed_are_left_alone():
    class Quantised(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Quantised(4, 4), nn.Linear(4, 4))
    model[2].forward = lambda states: states * 0
    with CPULinears(model).on(torch.float32, CPU, 1), torch.inference_mode():
        assert "forward" in vars(model[0])
        assert "forward" not in vars(model[1])
        assert not model[2](torch.ones(4)).any()
    assert "forward" in vars(model[2])


@pytest.mark.usefixtures("kinds")
def test_gradients_go_through_the_usual_product():
    layer = nn.Linear(8, 4)
    states = torch.randn(2, 8, requires_grad=True)
    linear(states, layer.weight, layer.bias).sum().backward()
    assert torch.allclose(states.grad, layer.weight.sum(0).expand(2, 8))


@pytest.mark.parametrize(("dtype", "rows"), [(torch.float16, 1), (torch.float64, 1), (torch.float32, 0)])
def test_elsewhere_they_are_not_used(dtype, rows):
    assert fastest(dtype, rows) == ("usual", "usual")


def test_on_other_devices_layers_are_left_alone(monkeypatch):
    monkeypatch.setattr(cpu_linears, "fastest", lambda *_: ("packed", "packed"))
    model = nn.Sequential(nn.Linear(4, 4))
    with CPULinears(model).on(torch.float32, torch.device("cuda"), 1):
        assert "forward" not in vars(model[0])


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 0.5, 0.6), ("weight_first", "weight_first")),  # packed is slower
        ((1.0, 0.5, 0.45), ("weight_first", "weight_first")),  # not clearly faster
        ((1.0, 0.5, 0.3), ("packed", "weight_first")),
        ((1.0, 0.9, 0.9), ("packed", "usual")),  # rounds like the usual one: a little is enough
        ((1.0, 0.9, 1.0), ("usual", "usual")),
    ],
)
def test_it_is_timed_once_for_like_numbers_of_rows(monkeypatch, seconds, chosen):
    cpu_linears._timed.cache_clear()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    times = iter([list(seconds)])
    monkeypatch.setattr(cpu_linears, "_seconds", lambda timed: next(times)[: len(timed)])
    assert [fastest(torch.float32, rows) for rows in (5, 8, 7)] == [chosen] * 3
    assert next(times, None) is None
    cpu_linears._timed.cache_clear()


def test_many_rows_go_by_the_next_smaller_number_that_is_timed(monkeypatch):
    asked = []
    monkeypatch.setattr(cpu_linears, "_timed", lambda _, rows, __: asked.append(rows))
    for rows in (1, 2, 3, 8, 9, 32, 255, 256, 4000):
        fastest(torch.float32, rows)
    assert asked == [1, 2, 4, 8, 32, 32, 32, 256, 256]
