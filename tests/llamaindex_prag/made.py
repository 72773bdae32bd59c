"""Random adapters and a source that holds them in memory."""

import numpy as np
import torch

from llamaindex_prag.adapter import AdapterKey, text_hash
from llamaindex_prag.layout import Layout
from rag_backbone.errors import AdapterError


def key_of(text: str) -> AdapterKey:
    return AdapterKey("m" * 64, "r" * 64, text_hash(text))


def random_values(layout: Layout, seed: int, size: float = 0.2) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(layout.size) * size).astype(np.float32)


class InMemory:
    """An `AdapterSource`."""

    def __init__(self, layout: Layout, values: dict[str, np.ndarray], scale: float = 2.0):
        self.layout, self.scale, self.generation, self.reads = layout, scale, 0, 0
        self.values = {key_of(text): buffer for text, buffer in values.items()}

    def read_into(self, key, out):
        if key not in self.values:
            raise AdapterError(f"no adapter {key.text[:8]}")
        self.reads += 1
        out[:] = self.values[key]
        return self.scale


def with_update(model, layout: Layout, updates: list[tuple[np.ndarray, float]]):
    """A copy of the model whose weights are W + sum_i w_i B_i A_i, as dense matrices."""
    import copy

    changed = copy.deepcopy(model)
    for buffer, weight in updates:
        for target, a, b in layout.factors(buffer):
            layer = changed.get_submodule(target.name)
            with torch.no_grad():
                layer.weight += torch.from_numpy(weight * (b.astype(np.float64) @ a.astype(np.float64))).float()
    return changed
