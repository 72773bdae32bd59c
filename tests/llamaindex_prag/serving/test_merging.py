"""Tests of merging several adapters into one: the sum of their updates, and a name derived from the content."""

import numpy as np
import pytest

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, orthogonalise
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.serving.merging import address, merged
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.serving.conftest import TEXTS


def updates(layout, buffer):
    return [b.astype(np.float64) @ a.astype(np.float64) for _, a, b in layout.factors(buffer)]


@pytest.mark.parametrize("merge", ["mean", "sum", "score", "orthogonal"])
def test_the_merged_adapter_is_the_weighted_sum_of_the_updates(local, store, merge):
    keys = [local.key(t) for t in TEXTS[:3]]
    strength = [1.0, 0.5, 2.0]
    selection = ActiveAdapters.of(keys, merge=merge, scores=[0.6, 0.3, 0.1], strength=strength)
    adapter = merged(store, selection)
    assert (adapter.layout.rank, adapter.scale) == (3 * local.layout.rank, 1.0)
    buffers = [store.get(k).buffer.copy() for k in keys]
    shares = {"mean": [1 / 3] * 3, "sum": [1.0] * 3, "score": [0.6, 0.3, 0.1], "orthogonal": [1 / 3] * 3}[merge]
    if merge == "orthogonal":
        orthogonalise(local.layout, buffers)
    found = updates(adapter.layout, adapter.buffer)
    for layer, update in enumerate(found):
        parts = [
            share * each * 2.0 * updates(local.layout, buffer)[layer]
            for share, each, buffer in zip(shares, strength, buffers, strict=True)
        ]
        assert np.allclose(update, sum(parts), atol=1e-5)


def test_the_address_depends_on_the_content_alone(local, store):
    keys = [local.key(t) for t in TEXTS[:2]]
    name = address(store, ActiveAdapters.of(keys))
    assert name == address(store, ActiveAdapters.of(keys[::-1], version=7))  # order and history do not matter
    others = [
        ActiveAdapters.of(keys, merge="sum"),
        ActiveAdapters.of(keys, strength=0.5),
        ActiveAdapters.of(keys[:1]),
        ActiveAdapters.of([keys[0], local.key(TEXTS[2])]),
        ActiveAdapters.of(keys, merge="orthogonal"),
        ActiveAdapters.of(keys[::-1], merge="orthogonal"),
    ]
    names = [name, *(address(store, s) for s in others)]
    assert len(set(names)) == len(names)
    store.put(keys[0], Adapter(local.layout, random_values(local.layout, 99, 0.1), 2.0), {})
    assert address(store, ActiveAdapters.of(keys)) != name
    again = address(store, ActiveAdapters.of(keys))
    store.put(keys[0], Adapter(local.layout, random_values(local.layout, 99, 0.1), 4.0), {})
    assert address(store, ActiveAdapters.of(keys)) != again  # the scale matters too


def test_a_missing_adapter_is_named_in_the_error(local, store):
    selection = ActiveAdapters.of([AdapterKey(store.model, local.recipe.key, "ab" * 32)])
    for function in (address, merged):
        with pytest.raises(AdapterMissingError, match="no adapter of text abab"):
            function(store, selection)
