"""Passages, and the record of the documents that they belong to."""

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.passages import Passage, settle_owners
from tests.llamaindex_prag.store.made import made_adapter, made_key, opened


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "store") as store:
        for text in ("one", "two", "three"):
            store.put(made_key(text), made_adapter(), {})
        yield store


def test_passages_without_a_document_have_no_owner(store):
    assert settle_owners(store, [Passage("one"), Passage("two", document="d")], complete=True) == 0
    assert store.owners(text_hash("one")) == []
    assert store.owners(text_hash("two")) == ["d"]


def test_parts_of_a_document_are_added_to_the_earlier_ones(store):
    for text in ("one", "two"):
        assert settle_owners(store, [Passage(text, document="d")], complete=False) == 0
    assert store.texts("d") == [text_hash("one"), text_hash("two")]
    assert len(store) == 3


def test_a_complete_document_loses_the_texts_that_it_no_longer_has(store):
    settle_owners(store, [Passage(text, document="d") for text in ("one", "two", "three")], complete=True)
    settle_owners(store, [Passage("three", document="other")], complete=True)
    assert settle_owners(store, [Passage(" one\n", document="d")], complete=True) == 1
    assert set(store.keys()) == {made_key("one"), made_key("three")}
    assert store.owners(text_hash("three")) == ["other"]
