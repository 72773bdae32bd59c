"""Merges several documents' adapters into one ordinary LoRA adapter, and names it by its content.

    sum_i w_i s_i B_i A_i  =  [w_1 s_1 B_1 ... w_k s_k B_k] [A_1; ...; A_k]

The merged adapter has rank k r and the same effect as the same active adapters in a bank. Does not need torch.
"""

from __future__ import annotations

import hashlib
import json

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.adapters.stacking import stacked
from llamaindex_prag.errors import AdapterMissingError


def merged(store: MergeableStore, selection: ActiveAdapters) -> Adapter:
    """Read the active adapters from the store and merge them into one with scale 1.

    Raises:
        AdapterMissingError: If the store lacks one of the adapters.
        AdapterDamagedError: If one of the adapters is damaged.
    """
    return stacked(_layout(store, selection.keys[0]), store, selection)


def address(store: MergeableStore, selection: ActiveAdapters) -> str:
    """Return a name for the result of `merged`: 128 bits of a SHA-256 over adapter contents, weights and merge.

    Clients that use these names can share a server, because equal names mean equal values.

    Raises:
        AdapterMissingError: If the store lacks one of the adapters.
    """
    members = []
    for key, weight in zip(selection.keys, selection.weights, strict=True):
        if (digest := store.digest(key)) is None:
            raise AdapterMissingError(f"the store has no adapter of text {key.text[:12]} and recipe {key.recipe[:12]}")
        members.append((digest, weight.hex()))
    # Order matters only if each adapter is made orthogonal to the ones before it.
    content = [store.model, selection.orthogonal, members if selection.orthogonal else sorted(members)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _layout(store: MergeableStore, key: AdapterKey) -> Layout:
    layout = store.layout(key)
    if layout is None:
        raise AdapterMissingError(f"the store has no adapter of text {key.text[:12]} and recipe {key.recipe[:12]}")
    return layout
