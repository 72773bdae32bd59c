"""Recording the output of a named layer or module."""

import pytest
import torch

from rag_backbone.engine.hidden_states import hidden_state_name, last_hidden, module_of
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import SignalUnavailableError
from tests.rag_backbone.engine.references import PROMPT
from tests.tiny import tiny_llama


def test_a_named_module_can_be_the_hidden_state(engine, model):
    made = engine.generate(Request(PROMPT, 2, signals=Signals(hidden_state="model.layers.1.mlp")))
    assert made.steps[1].hidden_state.shape == (32,)


def test_layers_are_found_by_index_from_either_end_and_modules_by_name(tiny_lm):
    model = tiny_lm.model
    layers = model.model.layers
    assert module_of(model, 0) is module_of(model, -3) is layers[0]
    assert module_of(model, "model.layers.2.mlp") is layers[2].mlp


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range_is_refused(tiny_lm, index):
    with pytest.raises(SignalUnavailableError, match=f"hidden_state={index}: the model has layers 0 to 2"):
        module_of(tiny_lm.model, index)


def test_an_unknown_name_is_refused_with_an_example(tiny_lm):
    with pytest.raises(SignalUnavailableError, match=r"no module 'head'.*'model\.layers\.3'"):
        module_of(tiny_lm.model, "head")


def test_the_name_of_a_part_leads_to_it(tiny_lm):
    model = tiny_lm.model
    assert hidden_state_name(model, 1, "layer") == 1
    assert module_of(model, hidden_state_name(model, 1, "mlp")) is model.model.layers[1].mlp
    assert module_of(model, hidden_state_name(model, -1, "mlp")) is model.model.layers[2].mlp


def test_a_layer_without_the_part_is_refused():
    model = tiny_llama()
    del model.model.layers[1].mlp
    with pytest.raises(SignalUnavailableError, match="layer 1 of LlamaForCausalLM has no part 'mlp'"):
        hidden_state_name(model, 1, "mlp")


def test_the_last_position_of_each_row_is_recorded_at_each_call():
    layer = torch.nn.Linear(3, 2)
    first, second = torch.randn(2, 4, 3), torch.randn(1, 1, 3)
    with torch.inference_mode(), last_hidden(layer) as found:
        layer(first)
        layer(second)
        expected = layer(first[:, -1]), layer(second[:, -1])
    assert torch.allclose(found[0], expected[0][:, None])
    assert torch.allclose(found[1], expected[1][:, None])


def test_the_last_positions_are_recorded_in_order():
    layer = torch.nn.Linear(3, 2)
    given = torch.randn(2, 4, 3)
    with torch.inference_mode(), last_hidden(layer, 3) as found:
        layer(given)
        assert torch.allclose(found[0], layer(given[:, 1:]))


def test_nothing_is_recorded_after_an_error():
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="stop"), last_hidden(layer) as found:
        raise RuntimeError("stop")
    layer(torch.zeros(1, 1, 3))
    assert not found
