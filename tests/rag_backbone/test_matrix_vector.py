"""Linear layers as matrix-vector products: the same numbers, and the model is left as it was."""

import pytest
import torch
from torch import nn

from rag_backbone import matrix_vector
from rag_backbone.engine import Engine
from rag_backbone.matrix_vector import VectorLinears, pays
from rag_backbone.requests import Request
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def everywhere(monkeypatch):
    """Whatever the processor: the layers are exchanged."""
    monkeypatch.setattr(matrix_vector, "pays", lambda *_: True)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (1, 1, 32), (2, 32), (1, 3, 32), (0, 32)])
@pytest.mark.usefixtures("everywhere")
def test_every_shape_gives_what_the_layer_gives(bias, shape):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 48, bias=bias))
    states = torch.randn(shape)
    expected = layer(states)
    with VectorLinears(layer).on(torch.float32, CPU), torch.inference_mode():
        found = layer(states)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("everywhere")
def test_products_are_as_exact_as_the_matrix_kernels():
    dtype = torch.bfloat16
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(1536, 576, bias=False)).to(dtype)
    states = torch.randn(1, 1, 1536).to(dtype)
    exact = states.double() @ layer[0].weight.double().T
    with torch.inference_mode():
        usual = (layer(states).double() - exact).abs().max()
        with VectorLinears(layer).on(dtype, CPU):
            ours = (layer(states).double() - exact).abs().max()
    assert ours <= 1.5 * usual + 1e-6


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_the_engine_uses_them_for_single_tokens_only_and_leaves_the_model_alone(make, monkeypatch):
    model = make()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    shapes = []
    original = torch.mv

    def watched(weight, vector):
        shapes.append(tuple(weight.shape))
        return original(weight, vector)

    monkeypatch.setattr(matrix_vector.torch, "mv", watched)
    engine = Engine(model, tiny_tokenizer())
    out = engine.generate(Request([5, 6, 7, 8], max_new_tokens=6))
    plain = sum(layer.bias is None for layer in layers)
    assert len(shapes) == plain * (len(out.token_ids) - 1)  # none for the prompt, all for each further token
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.usefixtures("everywhere")
def test_a_failing_forward_leaves_the_model_alone():
    model = tiny_llama()
    with pytest.raises(RuntimeError, match="stop"), VectorLinears(model).on(torch.float32, CPU):
        raise RuntimeError("stop")
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.usefixtures("everywhere")
def test_layers_that_somebody_has_wrapped_or_subclassed_are_left_alone():
    class Quantised(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Quantised(4, 4), nn.Linear(4, 4))
    model[2].forward = lambda states: states * 0
    with VectorLinears(model).on(torch.float32, CPU), torch.inference_mode():
        assert "forward" in vars(model[0])
        assert "forward" not in vars(model[1])
        assert not model[2](torch.ones(4)).any()
    assert "forward" in vars(model[2])


ELSEWHERE = [(torch.float16, "cpu"), (torch.float32, "cpu"), (torch.float64, "cpu"), (torch.bfloat16, "cuda")]


@pytest.mark.parametrize(("dtype", "device"), ELSEWHERE)
def test_elsewhere_they_are_not_used(dtype, device):
    assert not pays(dtype, torch.device(device))


def test_it_is_measured_once(monkeypatch):
    matrix_vector.is_faster.cache_clear()
    times = iter([1.0, 0.5, 1.0, 0.9])
    monkeypatch.setattr(matrix_vector, "_seconds", lambda *_: next(times))
    assert matrix_vector.is_faster(1)
    assert matrix_vector.is_faster(1)
    assert not matrix_vector.is_faster(2)  # not clearly
    matrix_vector.is_faster.cache_clear()
