"""The layers of a model that an adapter changes."""

import pytest

from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.targets import layout_of
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
