"""Fixtures: a new store, and the folder of a closed one with four adapters."""

import pytest

from tests.llamaindex_prag.store.made import made_adapter, made_key, made_layout, opened


@pytest.fixture
def folder(tmp_path):
    with opened(tmp_path / "store") as store:
        for i in range(4):
            store.put(made_key(str(i)), made_adapter(i, made_layout(1)), {})
    return tmp_path / "store"


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "store") as store:
        yield store
