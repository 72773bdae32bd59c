"""The layers of a model that an adapter changes."""

import pytest
from torch import nn

from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.targets import layout_of, target_layers
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama


def test_adapters_of_another_model_are_refused(source):
    other = tiny_llama(intermediate_size=64)
    with pytest.raises(ConfigurationError, match="64 outputs"):
        AdapterBank(other, source.layout, source)
    with pytest.raises(ConfigurationError, match="no linear layers named fc9"):
        layout_of(other, rank=2, targets=("fc9",))
    with pytest.raises(ConfigurationError, match="0 to 2"):
        layout_of(other, rank=2, layers=(3,))


def test_a_fraction_of_the_layers_is_counted_from_the_last_layer():
    model = tiny_llama()
    count = model.config.num_hidden_layers
    assert layout_of(model, rank=2, layers=1 / count) == layout_of(model, rank=2, layers=(-1,))
    assert layout_of(model, rank=2, layers=1.0) == layout_of(model, rank=2)
    assert layout_of(model, rank=2, layers=0.01) == layout_of(model, rank=2, layers=(count - 1,))


def test_a_layout_names_the_chosen_layers_in_model_order():
    model = tiny_llama()
    found = layout_of(model, rank=2, targets=("q_proj", "down_proj"), layers=(-1, 0))
    assert [t.name for t in found.targets] == [
        f"model.layers.{i}.{name}" for i in (0, 2) for name in ("self_attn.q_proj", "mlp.down_proj")
    ]
    assert (found.targets[1].inputs, found.targets[1].outputs) == (48, 32)
    assert [type(layer).__name__ for layer in target_layers(model, found)] == ["Linear"] * 4


def test_layers_that_are_no_longer_plain_are_refused():
    model = tiny_llama()
    layout = layout_of(model, rank=2)
    model.model.layers[1].mlp.up_proj.forward = lambda states: states
    with pytest.raises(ConfigurationError, match="replaced the forward of model.layers.1.mlp.up_proj"):
        target_layers(model, layout)
    for layer in model.model.layers:
        layer.mlp.up_proj = nn.Sequential()
    with pytest.raises(ConfigurationError, match="up_proj of LlamaForCausalLM is a Sequential, not an nn.Linear"):
        layout_of(model, rank=2, targets=("up_proj",))
    with pytest.raises(ConfigurationError, match=r"no linear layer model.layers.0.mlp.up_proj; the adapters belong"):
        target_layers(model, layout)
