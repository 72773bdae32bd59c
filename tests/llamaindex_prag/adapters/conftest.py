"""Fixtures: tiny models with a bank, and adapters in memory."""

import pytest

from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.targets import layout_of
from tests.llamaindex_prag.made import InMemory, random_values
from tests.tiny import tiny_llama, tiny_qwen2

TEXTS = ["a", "b", "c", "d"]


@pytest.fixture(params=[tiny_llama, tiny_qwen2])
def model(request):
    return request.param()


@pytest.fixture
def layout(model):
    return layout_of(model, rank=2)


@pytest.fixture
def source(layout):
    return InMemory(layout, {text: random_values(layout, i) for i, text in enumerate(TEXTS)})


@pytest.fixture
def bank(model, layout, source):
    return AdapterBank(model, layout, source, max_adapters=3, slots=4)
