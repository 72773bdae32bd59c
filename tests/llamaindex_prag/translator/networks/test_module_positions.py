"""Positions of adapted modules: the layer's number and the name within it."""

from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.translator.networks.module_positions import ModulePosition, module_positions
from tests.tiny import tiny_llama


def test_module_positions_are_layer_numbers_and_names_within_the_layer():
    layout = layout_of(tiny_llama(), rank=1, layers=(1,))
    assert module_positions(layout) == [ModulePosition(1, f"mlp.{n}_proj") for n in ("gate", "up", "down")]
