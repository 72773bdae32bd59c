"""Random adapters and a source that holds them in memory."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import AdapterError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer


def key_of(text: str) -> AdapterKey:
    return AdapterKey("m" * 64, "r" * 64, text_hash(text))


def random_values(layout: Layout, seed: int, size: float = 0.2) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(layout.size) * size).astype(np.float32)


def version_of(layout: Layout, values: np.ndarray, seed: int, alike: float = 0.6) -> np.ndarray:
    """Return another adapter whose update has about this cosine with the given one: same `A`, partly the same `B`."""
    made, b = values.copy(), slice(layout.a_size, None)
    noise = random_values(layout, seed, float(values[b].std()))
    made[b] = alike * values[b] + (1 - alike**2) ** 0.5 * noise[b]
    return made


@contextmanager
def random_model(folder: Path, size: float) -> Iterator[ParametricModel]:
    """Yield a tiny model with random adapters of `text 0`, `text 1` and `text 2`, with values of this size."""
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(folder / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        made = ParametricModel(lm, store, recipe="prag", max_adapters=3).attach()
        for i in range(3):
            store.put(made.key(f"text {i}"), Adapter(made.layout, random_values(made.layout, i, size), 2.0), {})
        yield made


class InMemory:
    """An `AdapterSource` that counts its reads."""

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
    """Return a copy of the model whose weights are W + sum_i w_i B_i A_i, as dense matrices."""

    changed = copy.deepcopy(model)
    for buffer, weight in updates:
        for target, a, b in layout.factors(buffer):
            layer = changed.get_submodule(target.name)
            with torch.no_grad():
                layer.weight += torch.from_numpy(weight * (b.astype(np.float64) @ a.astype(np.float64))).float()
    return changed


def keys(*texts):
    return [key_of(t) for t in texts]
