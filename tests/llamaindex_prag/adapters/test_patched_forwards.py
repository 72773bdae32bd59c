"""Forwards that are replaced for a while."""

import pytest
import torch
from torch import nn

from llamaindex_prag.adapters.patched_forwards import patched_forwards


@pytest.fixture
def layers():
    return [nn.Linear(2, 2), nn.Linear(2, 2)]


def patches(layers, value: float):
    return [(vars(layer), lambda states: torch.full_like(states, value)) for layer in layers]


def mean(layer) -> float:
    return layer(torch.zeros(1, 2)).mean().item()


def test_the_layers_use_the_given_forward_and_their_own_afterwards(layers):
    before = [mean(layer) for layer in layers]
    with patched_forwards(patches(layers, 3.0)):
        assert [mean(layer) for layer in layers] == [3.0, 3.0]
    assert [mean(layer) for layer in layers] == before
    assert not any("forward" in vars(layer) for layer in layers)


def test_the_layers_own_forwards_return_after_an_error(layers):
    with pytest.raises(RuntimeError, match="stop"), patched_forwards(patches(layers, 3.0)):
        raise RuntimeError("stop")
    assert not any("forward" in vars(layer) for layer in layers)


def test_an_outer_replacement_is_neither_changed_nor_removed(layers):
    with patched_forwards(patches(layers[:1], 3.0)):
        with patched_forwards(patches(layers, 4.0)):
            assert [mean(layer) for layer in layers] == [3.0, 4.0]
        assert mean(layers[0]) == 3.0
        assert "forward" not in vars(layers[1])
