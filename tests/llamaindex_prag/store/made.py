"""Small adapters, keys and stores, created without torch, because the worker processes import this module too."""

import hashlib

import numpy as np

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.recipe import DISTILL, PRAG
from llamaindex_prag.store import LMDBStore, ObjectStore

MODEL = hashlib.sha256(b"a model").hexdigest()
OTHER_MODEL = hashlib.sha256(b"another model").hexdigest()
LAYOUT = Layout((Target("model.layers.0.mlp.up_proj", 12, 20), Target("model.layers.0.mlp.down_proj", 20, 12)), 2)


def made_layout(layers=8, inputs=576, outputs=1536, rank=8):
    names = [f"model.layers.{i}.mlp.up_proj" for i in range(layers)]
    return Layout(tuple(Target(name, inputs, outputs) for name in names), rank)


def made_adapter(seed=0, layout=LAYOUT, scale=16.0):
    values = np.random.default_rng(seed).standard_normal(layout.size).astype(np.float32) * 0.02
    return Adapter(layout, values, scale)


def made_key(text="a passage", recipe=PRAG, model=MODEL):
    return AdapterKey(model, recipe.key, text_hash(text))


def opened(path, **options):
    return LMDBStore(path, **{"model": MODEL, "encoding": "float32", **options})


def shared(url, **options):
    return ObjectStore(url, **{"model": MODEL, "encoding": "float32", "attempts": 3, **options})


__all__ = [
    "DISTILL",
    "LAYOUT",
    "MODEL",
    "OTHER_MODEL",
    "PRAG",
    "made_adapter",
    "made_key",
    "made_layout",
    "opened",
    "shared",
]
