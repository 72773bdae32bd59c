"""Augmentations in a store: under their augmenter's key, and removed with their text."""

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.kept import TABLE, keep, kept

TEXT = "The Harl Gate was built in 1871."
FOUND = Augmentation("A rewrite.", (QA("When was the Harl Gate built?", "1871"),), ("a note",))


def test_an_augmentation_is_found_again_by_augmenter_title_and_text(store):
    keep(store, "k", "Harl Gate", TEXT, FOUND)
    assert kept(store, "k", " Harl Gate ", TEXT) == FOUND
    for key, title, text in (("l", "Harl Gate", TEXT), ("k", "Gate", TEXT), ("k", "Harl Gate", TEXT + " It stands.")):
        assert kept(store, key, title, text) is None


@pytest.mark.parametrize("damage", [{"qas": []}, [], {"qas": [{"question": 3, "answer": "a"}]}])
def test_a_damaged_one_counts_as_missing_with_a_warning(store, caplog, monkeypatch, damage):
    keep(store, "k", "Harl Gate", TEXT, FOUND)
    names = []
    read = store.get_json
    monkeypatch.setattr(store, "get_json", lambda table, key: names.append(key) or read(table, key))
    assert kept(store, "k", "Harl Gate", TEXT) == FOUND
    assert names[0].startswith(f"{text_hash(TEXT)}/")
    store.put_json(TABLE, names[0], damage)
    assert kept(store, "k", "Harl Gate", TEXT) is None
    assert "'Harl Gate' is damaged and will be generated again" in caplog.text
