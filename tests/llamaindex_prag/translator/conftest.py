"""Fixtures: a tiny model, a store with one trained (random) adapter, and an untrained translator of the same layout."""

import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.recipe import PRAG
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from tests.llamaindex_prag.made import random_values

TRAINED = "The keeper of the lighthouse wrote a letter in the winter of 1871."
OTHERS = [
    "A bridge of forty-one arches crosses the river.",
    "Nobody came back to the town.",
    "An engineer built a road.",
]


def strong(lm, seed=0) -> Translator:
    """Build an untrained translator whose adapters change answers."""
    config = TranslatorConfig.of(lm, "shared", recipe=PRAG, width=16, tokens=3, heads=2, seed=seed)
    made = Translator(lm, config)
    made.network.gains.data.fill_(0.6)
    return made


@pytest.fixture
def translator(lm):
    return strong(lm)


@pytest.fixture
def model(lm, store, translator):
    made = ParametricModel.of(lm, store, recipe="prag", max_adapters=3, translator=translator)
    store.put(made.key(TRAINED), Adapter(made.layout, random_values(made.layout, 0, 0.1), 2.0), {}, owners=["letters"])
    return made
