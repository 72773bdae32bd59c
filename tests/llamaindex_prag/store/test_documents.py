"""Documents of a store: the texts that they use, and the indexes that hold them."""

from llamaindex_prag.adapters.adapter import text_hash
from tests.llamaindex_prag.store.made import (
    made_adapter,
    made_key,
)


def test_a_text_of_two_documents_is_removed_with_the_second(store):
    store.put(made_key("shared"), made_adapter(), {}, owners=["a", "b"])
    store.put(made_key("own"), made_adapter(), {}, owners=["a"])
    assert store.remove_document("a") == [text_hash("own")]
    assert store.keys() == [made_key("shared")]
    assert store.remove_document("b") == [text_hash("shared")]
    assert store.keys() == []
    assert store.remove_document("b") == []


def test_a_changed_document_frees_the_texts_that_it_no_longer_has(store):
    for text in ("one", "two", "three"):
        store.put(made_key(text), made_adapter(), {}, owners=["document"])
    new = [text_hash("two"), text_hash("four")]
    assert store.own("document", new) == [text_hash("one"), text_hash("three")]
    assert store.texts("document") == new
    assert len(store) == 3
    assert store.stats().unowned_texts == 2
    report = store.gc()
    assert sorted(report.removed_texts) == sorted([text_hash("one"), text_hash("three")])
    assert report.removed_adapters == 2
    assert store.keys() == [made_key("two")]
