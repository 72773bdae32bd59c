"""Stacks the adapters of a call along the rank, so that they become one ordinary LoRA adapter.

    sum_i w_i s_i B_i A_i  =  [w_1 s_1 B_1 ... w_k s_k B_k] [A_1; ...; A_k]

k adapters of rank r give one of rank k r, with the same effect as the active adapters in a bank. Does not need torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, weigh
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.source import AdapterSource


def stacked(layout: Layout, source: AdapterSource, selection: ActiveAdapters) -> Adapter:
    """Read the active adapters and stack them into one with scale 1.

    Args:
        layout: The layout of each adapter.
        source: The adapters, stored or translated.
        selection: Which adapters are stacked, and their weights.

    Raises:
        AdapterMissingError: If the source lacks one of the adapters.
        AdapterDamagedError: If one of the adapters is damaged.
    """
    buffers = [np.empty(layout.size, np.float32) for _ in selection.keys]
    scales = [source.read_into(key, out) for key, out in zip(selection.keys, buffers, strict=True)]
    weigh(layout, selection, buffers, scales)
    together = Layout(layout.targets, layout.rank * len(buffers))
    out = np.empty(together.size, np.float32)
    parts: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]] = (
        (layout.a_offsets, together.a_offsets, [t.inputs for t in layout.targets]),
        (layout.b_offsets, together.b_offsets, [t.outputs for t in layout.targets]),
    )
    for offsets, ends, widths in parts:
        for start, end, width in zip(offsets, ends, widths, strict=True):
            size = layout.rank * width  # both factors are stored rank by rank, so stacking them is concatenation
            for i, buffer in enumerate(buffers):
                out[end + i * size : end + (i + 1) * size] = buffer[start : start + size]
    return Adapter(together, out, 1.0)
