"""Documents of a store: the texts that they use, and the indexes that hold them."""

from llamaindex_prag.adapters.adapter import text_hash
from tests.llamaindex_prag.store.made import made_adapter, made_key


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


def test_a_document_that_another_index_holds_keeps_its_texts(store):
    store.put(made_key("one"), made_adapter(), {}, owners=["document"])
    for index in ("first", "second"):
        store.hold(index, ["document", "without adapters"])
    (known, other) = store.documents()
    assert (known.id, list(known.texts), sorted(known.indexes)) == ("document", [text_hash("one")], ["first", "second"])
    assert (other.id, list(other.texts)) == ("without adapters", [])
    assert store.let_go(["first"], "document") == []
    assert made_key("one") in store
    assert store.let_go(["second"], "document") == [text_hash("one")]
    assert made_key("one") not in store


def test_texts_that_an_index_still_has_are_kept(store):
    for text in ("one", "two"):
        store.put(made_key(text), made_adapter(), {}, owners=["document"])
    store.hold("index", ["document"])
    assert store.let_go(["index"], "document", [text_hash("two")]) == [text_hash("one")]
    assert store.texts("document") == [text_hash("two")]
    assert store.let_go(["index"], "unknown") == []


def test_without_purge_freed_texts_stay_until_gc(store):
    store.put(made_key("one"), made_adapter(), {}, owners=["document"])
    store.hold("index", ["document"])
    assert store.let_go(["index"], "document", purge=False) == [text_hash("one")]
    assert made_key("one") in store
    assert list(store.gc().removed_texts) == [text_hash("one")]


def test_replacing_a_documents_texts_removes_only_those_that_no_other_document_uses(store):
    for text, owners in (("shared", ["a", "b"]), ("own", ["a"])):
        store.put(made_key(text), made_adapter(), {}, owners=owners)
    assert store.replace_document("a", [text_hash("new")]) == [text_hash("own")]
    assert store.keys() == [made_key("shared")]
    assert store.owners(text_hash("shared")) == ["b"]
