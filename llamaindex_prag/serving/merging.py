"""Several documents' adapters as one ordinary LoRA adapter, and the name of its content.

    sum_i w_i s_i B_i A_i  =  [w_1 s_1 B_1 ... w_k s_k B_k] [A_1; ...; A_k]

so the merged adapter has rank k r and changes the model as the bank does with the same selection. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, weigh
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.errors import AdapterMissingError


def merged(store: MergeableStore, selection: ActiveAdapters) -> Adapter:
    """Read a selection's adapters and make one of them, with scale 1.

    Raises:
        AdapterMissingError: If the store lacks one.
        AdapterDamagedError: If one is not what was written.
    """
    layout = _layout(store, selection.keys[0])
    buffers = [np.empty(layout.size, np.float32) for _ in selection.keys]
    scales = [store.read_into(key, out) for key, out in zip(selection.keys, buffers, strict=True)]
    weigh(layout, selection, buffers, scales)
    together = Layout(layout.targets, layout.rank * len(buffers))
    out = np.empty(together.size, np.float32)
    parts: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]] = (
        (layout.a_offsets, together.a_offsets, [t.inputs for t in layout.targets]),
        (layout.b_offsets, together.b_offsets, [t.outputs for t in layout.targets]),
    )
    for offsets, ends, widths in parts:
        for start, end, width in zip(offsets, ends, widths, strict=True):
            size = layout.rank * width  # both factors lie rank by rank, so that stacking is putting end to end
            for i, buffer in enumerate(buffers):
                out[end + i * size : end + (i + 1) * size] = buffer[start : start + size]
    return Adapter(together, out, 1.0)


def address(store: MergeableStore, selection: ActiveAdapters) -> str:
    """The name of what `merged` would give: 128 bits of a SHA-256 over adapters' contents, weights and merge.

    Whoever names an adapter so can share a server with others that do: a name that is taken holds the same values.

    Raises:
        AdapterMissingError: If the store lacks one of the adapters.
    """
    members = []
    for key, weight in zip(selection.keys, selection.weights, strict=True):
        if (digest := store.digest(key)) is None:
            raise AdapterMissingError(f"the store has no adapter of text {key.text[:12]} and recipe {key.recipe[:12]}")
        members.append((digest, weight.hex()))
    # The order decides only where each is made orthogonal to those before it.
    content = [store.model, selection.orthogonal, members if selection.orthogonal else sorted(members)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _layout(store: MergeableStore, key: AdapterKey) -> Layout:
    layout = store.layout(key)
    if layout is None:
        raise AdapterMissingError(f"the store has no adapter of text {key.text[:12]} and recipe {key.recipe[:12]}")
    return layout
