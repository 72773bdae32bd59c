"""Garbage collection, statistics, listing and verification of a whole store."""

import lmdb
import numpy as np
import pytest

from llamaindex_prag.errors import AdapterDamagedError
from tests.llamaindex_prag.store.made import LAYOUT, MODEL, made_adapter, made_key, made_layout, opened


def test_gc_keeps_what_never_had_an_owner(store):
    store.put(made_key("nobody's"), made_adapter(), {})
    store.put(made_key("freed, then put again"), made_adapter(), {}, owners=["a"])
    store.own("a", [])
    store.put(made_key("freed, then put again"), made_adapter(), {})
    assert store.gc().removed_adapters == 0
    assert len(store) == 2


def test_gc_returns_space_and_keeps_the_rest(tmp_path):
    layout = made_layout(layers=2)
    with opened(tmp_path / "store") as store:
        for i in range(20):
            store.put(made_key(str(i)), made_adapter(i, layout), {"number": i}, owners=[f"document {i % 2}"])
        store.remove_document("document 0")
        generation = store.generation
        report = store.gc()
        assert (report.compacted, report.reason) == (True, "")
        assert report.bytes_after < 0.6 * report.bytes_before
        assert store.generation == generation
        assert store.verify().checked == 10
        np.testing.assert_array_equal(store.get(made_key("1")).buffer, made_adapter(1, layout).buffer)
        store.put(made_key("0"), made_adapter(0, layout), {})
    with opened(tmp_path / "store") as store:
        assert len(store) == 11
        assert store.verify().ok
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["data.mdb", "lock.mdb"]


def test_removed_bytes_are_gone_from_the_file_after_gc(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {"secret": "the vault's number"})
        store.put_json("questions", made_key().text, ["What is the vault's number?"])
        assert b"vault's number" in (tmp_path / "store/data.mdb").read_bytes()
        store.remove(made_key().text)
        store.gc()
    assert b"vault's number" not in (tmp_path / "store/data.mdb").read_bytes()
    assert made_adapter().buffer.tobytes() not in (tmp_path / "store/data.mdb").read_bytes()


def test_gc_allows_another_layout_for_a_recipe_without_adapters(store):
    store.put(made_key(), made_adapter(), {})
    store.remove(made_key())
    store.gc()
    store.put(made_key(), made_adapter(layout=made_layout(1)), {})
    assert store.layout(made_key()) == made_layout(1)


def damage(path, change, table=b"values"):
    """Change the first value of a table behind the store's back."""
    with lmdb.open(str(path), max_dbs=16) as env:
        db = env.open_db(table)
        with env.begin(write=True) as transaction:
            key, value = next(iter(transaction.cursor(db)))
            transaction.put(key, change(value), db=db)


@pytest.mark.parametrize("encoding", ["float32", "bfloat16", "int4"])
def test_damaged_bytes_are_detected_and_named(tmp_path, encoding):
    with opened(tmp_path / "store", encoding=encoding) as store:
        for text in ("one", "two", "three"):
            store.put(made_key(text), made_adapter(), {})
        first = store.keys()[0]
    damage(tmp_path / "store", lambda v: v[:-3] + bytes([v[-3] ^ 1]) + v[-2:])
    with opened(tmp_path / "store") as store:
        report = store.verify()
        assert not report.ok
        assert report.checked == 3
        [(key, reason)] = report.damaged
        assert key == first
        assert "checksum" in reason
        for read in (store.get, lambda k: store.read_into(k, np.empty(LAYOUT.size, np.float32))):
            with pytest.raises(AdapterDamagedError, match=f"{first.text[:12]}.*checksum"):
                read(first)
        assert store.remove(first) == 1
        assert store.verify().ok


def test_a_damaged_layout_is_detected(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {})
    damage(tmp_path / "store", lambda v: v.replace(b'"rank": 2', b'"rank": 3'), b"layouts")
    with opened(tmp_path / "store") as store:
        assert "layout" in store.verify().damaged[0][1]


def test_stats_count_adapters_documents_and_bytes(store):
    store.put(made_key(), made_adapter(), {}, owners=["a", "b"])
    store.put_json("t", "k", 1)
    stats = store.stats()
    assert (stats.adapters, stats.documents, stats.side_entries, stats.model) == (1, 2, 1, MODEL)
    assert stats.file_bytes > stats.value_bytes >= LAYOUT.size * 4
