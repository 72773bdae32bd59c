"""Growing layers compared with plain lists of the tokens that each one holds."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_backbone.engine.kv_cache import GrowingLayer

PLACE = st.integers(0, 5)
CHANGES = st.one_of(
    st.tuples(st.just("extend"), PLACE, st.lists(st.integers(1, 99), min_size=1, max_size=4)),
    st.tuples(st.just("cut"), PLACE, st.integers(0, 8)),
    st.tuples(st.just("copy"), PLACE, st.integers(0, 8)),
)


def extend(layer: GrowingLayer, values: list[int]) -> None:
    states = torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1).expand(1, 2, -1, 3)
    keys, given_values = layer.update(states, -states)
    assert torch.equal(keys, -given_values)


def held(layer: GrowingLayer) -> list[int]:
    if not layer.is_initialized:
        return []
    assert torch.equal(layer.keys, -layer.values)
    assert layer.keys.shape[2] == layer.length == layer.get_seq_length()
    return [int(value) for value in layer.keys[0, 1, :, 2]]


@settings(deadline=None, max_examples=300)
@given(st.lists(CHANGES, max_size=25))
def test_layers_stay_independent_when_copied_truncated_and_continued(changes):
    layers, expected = [GrowingLayer()], [list[int]()]
    for kind, place, what in changes:
        i = place % len(layers)
        if kind == "extend":
            extend(layers[i], what)
            expected[i] = expected[i] + what
        elif kind == "cut":
            layers[i].truncate(min(what, len(expected[i])))
            expected[i] = expected[i][:what]
        else:
            layers.append(layers[i].copy(min(what, len(expected[i]))))
            expected.append(expected[i][:what])
        assert [held(layer) for layer in layers] == expected


def test_a_copy_allocates_memory_only_when_it_is_continued():
    layer = GrowingLayer()
    extend(layer, list(range(1, 500)))
    other = layer.copy(400)
    assert other.keys.data_ptr() == layer.keys.data_ptr()
    extend(other, [7])
    assert other.keys.data_ptr() != layer.keys.data_ptr()
    assert held(other) == [*range(1, 401), 7]
    room = other.key_buffer
    extend(other, [8])  # from now on in place
    assert other.key_buffer is room
