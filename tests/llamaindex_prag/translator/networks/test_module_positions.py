"""Positions of adapted modules: the layer's number and the name within it."""

import pytest

from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.translator.networks.module_positions import ModulePosition, module_positions
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama


def test_module_positions_are_layer_numbers_and_names_within_the_layer():
    layout = layout_of(tiny_llama(), rank=1, layers=(1,))
    assert module_positions(layout) == [ModulePosition(1, f"mlp.{n}_proj") for n in ("gate", "up", "down")]


def test_the_last_number_in_a_name_is_that_of_the_layer():
    def position(name):
        (found,) = module_positions(Layout((Target(name, 1, 1),), 1))
        return found

    assert position("3.mlp.up_proj") == ModulePosition(3, "mlp.up_proj")
    assert position("model.layers.12.mlp.up_proj") == ModulePosition(12, "mlp.up_proj")
    assert position("experts.1.layers.2.up_proj") == ModulePosition(2, "up_proj")
    with pytest.raises(ConfigurationError, match="lm_head is not in a numbered layer"):
        position("lm_head")
    with pytest.raises(ConfigurationError, match="layers.x.up_proj is not in a numbered layer"):
        position("layers.x.up_proj")
