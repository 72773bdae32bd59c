"""A store in one process: what it keeps, refuses, returns and removes."""

import json
import subprocess
import sys
import threading

import lmdb
import numpy as np
import pytest

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, AdapterMissingError, AdapterRefusedError, StoreError
from llamaindex_prag.store import AdapterStore, LMDBStore
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.store.made import (
    DISTILL,
    LAYOUT,
    MODEL,
    OTHER_MODEL,
    made_adapter,
    made_key,
    made_layout,
    opened,
)


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "store") as store:
        yield store


def test_lmdb_store_implements_adapter_store(store):
    assert isinstance(store, AdapterStore)


def test_stored_adapters_are_there_after_reopening(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {"steps": 40, "text": "naïve 東京"})
    with opened(tmp_path / "store", readonly=True) as store:
        found = store.get(made_key())
        np.testing.assert_array_equal(found.buffer, made_adapter().buffer)
        assert (found.layout, found.scale) == (LAYOUT, 16.0)
        assert store.record(made_key()) == {"steps": 40, "text": "naïve 東京"}
        assert store.layout(made_key()) == LAYOUT
        assert store.keys() == [made_key()]
        assert made_key() in store
        assert len(store) == 1


@pytest.mark.parametrize(("encoding", "error"), [("float32", 0), ("bfloat16", 0.004), ("int4", 0.12)])
def test_adapters_are_read_into_a_buffer(tmp_path, encoding, error):
    adapter = made_adapter(layout=made_layout(layers=2))
    out = np.empty(adapter.layout.size, np.float32)
    with opened(tmp_path / "store", encoding=encoding) as store:
        store.put(made_key(), adapter, {})
        assert store.read_into(made_key(), out) == adapter.scale
        np.testing.assert_array_equal(out, store.get(made_key()).buffer)
    assert np.linalg.norm(out - adapter.buffer) <= error * np.linalg.norm(adapter.buffer)


def test_a_store_can_hold_several_encodings(tmp_path):
    for encoding in ("float32", "bfloat16", "int4"):
        with opened(tmp_path / "store", encoding=encoding) as store:
            store.put(made_key(encoding), made_adapter(), {})
    with opened(tmp_path / "store") as store:
        assert store.verify().ok
        assert len(store) == 3


def test_missing_entries_are_none(store):
    assert store.get(made_key()) is None
    assert store.record(made_key()) is None
    assert store.layout(made_key()) is None
    assert store.get_json("questions", made_key().text) is None
    assert made_key() not in store
    assert made_key(model=OTHER_MODEL) not in store
    assert "anything" not in store
    assert store.keys() == []
    assert store.remove(made_key()) == 0
    with pytest.raises(AdapterMissingError, match="no adapter of text"):
        store.read_into(made_key(), np.empty(LAYOUT.size, np.float32))


def test_adapters_of_two_recipes_do_not_mix(store):
    store.put(made_key(), made_adapter(1), {})
    store.put(made_key(recipe=DISTILL), made_adapter(2, made_layout(1)), {})
    assert store.get(made_key()).layout == LAYOUT
    assert store.get(made_key(recipe=DISTILL)).layout == made_layout(1)


def test_an_adapter_of_another_model_is_refused(store):
    with pytest.raises(AdapterRefusedError, match=f"{OTHER_MODEL[:12]}.*{MODEL[:12]}"):
        store.put(made_key(model=OTHER_MODEL), made_adapter(), {})
    with pytest.raises(AdapterRefusedError, match="one model only"):
        store.get(made_key(model=OTHER_MODEL))


def test_a_recipe_has_one_layout(store):
    store.put(made_key("first"), made_adapter(), {})
    other = Layout(LAYOUT.targets, 3)
    with pytest.raises(AdapterRefusedError, match=r"rank 3.*rank 2.*another recipe"):
        store.put(made_key("second"), made_adapter(layout=other), {})
    assert made_key("second") not in store


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not finite"), (np.inf, "not finite"), (2e4, "diverged"), (-2e4, "diverged")]
)
def test_values_that_training_does_not_produce_are_refused(store, value, reason):
    adapter = made_adapter()
    adapter.buffer[3] = value
    with pytest.raises(AdapterError, match=reason):
        store.put(made_key(), adapter, {})
    assert len(store) == 0


def test_a_record_must_be_plain_data(store):
    for record in ({"a": object()}, {"a": float("nan")}, {"a": {1, 2}}):
        with pytest.raises(AdapterRefusedError, match="plain JSON"):
            store.put(made_key(), made_adapter(), record)


def test_invalid_hashes_are_refused(store):
    for wrong in ("", "abc", "z" * 64):
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            store.remove(wrong)


def test_the_generation_rises_when_copies_become_stale(store):
    seen = [store.generation]

    def rose():
        seen.append(store.generation)
        return seen[-1] > seen[-2]

    store.put(made_key(), made_adapter(), {})
    assert not rose()
    store.put(made_key(), made_adapter(), {"again": True})
    assert not rose()
    store.put_json("questions", made_key().text, ["?"])
    assert not rose()
    store.put(made_key(), made_adapter(1), {})
    assert rose()
    store.remove(made_key("none"))
    assert not rose()
    store.remove(made_key())
    assert rose()
    store.put(made_key(), made_adapter(), {}, owners=["a"])
    assert not rose()
    store.remove_document("a")
    assert rose()
    store.gc()
    assert not rose()


def test_removing_a_text_removes_everything_about_it(store):
    text = made_key().text
    for recipe in (made_key().recipe, DISTILL):
        key = made_key() if isinstance(recipe, str) else made_key(recipe=recipe)
        store.put(key, made_adapter(), {"of": "it"}, owners=["document"])
    store.put(made_key("neighbour"), made_adapter(), {})
    store.put_json("questions", text, ["?"])
    store.put_json("questions", f"{text}/v2", ["??"])
    store.put_json("questions", "something else", ["kept"])
    assert store.remove(text) == 2
    assert store.keys() == [made_key("neighbour")]
    assert store.get(made_key()) is None
    assert store.record(made_key()) is None
    assert store.get_json("questions", text) is None
    assert store.get_json("questions", f"{text}/v2") is None
    assert store.get_json("questions", "something else") == ["kept"]
    assert store.owners(text) == []
    assert store.texts("document") == []
    assert store.stats().documents == 0


def test_removing_one_adapter_keeps_the_text_for_the_others(store):
    store.put(made_key(), made_adapter(), {}, owners=["document"])
    store.put(made_key(recipe=DISTILL), made_adapter(), {})
    store.put_json("questions", made_key().text, ["?"])
    assert store.remove(made_key()) == 1
    assert store.keys() == [made_key(recipe=DISTILL)]
    assert store.get_json("questions", made_key().text) == ["?"]
    assert store.remove(made_key(recipe=DISTILL)) == 1
    assert store.get_json("questions", made_key().text) is None
    assert store.owners(made_key().text) == []


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


def test_the_map_grows(tmp_path):
    layout = made_layout(layers=2)
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        for i in range(8):
            store.put(made_key(str(i)), made_adapter(i, layout), {})
        stats = store.stats()
        assert stats.map_bytes > 8 * layout.size * 4
        assert stats.value_bytes >= 8 * layout.size * 4
        assert store.verify().ok
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        assert store.verify().checked == 8


def test_threads_read_while_the_map_grows(tmp_path):
    layout = made_layout(layers=1)
    wrong = []
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        store.put(made_key("0"), made_adapter(0, layout), {})
        done = threading.Event()

        def read():
            out = np.empty(layout.size, np.float32)
            while not done.is_set():
                store.read_into(made_key("0"), out)
                if not np.array_equal(out, made_adapter(0, layout).buffer):
                    wrong.append(1)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for i in range(1, 60):
                store.put(made_key(str(i)), made_adapter(i, layout), {})
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not wrong
        assert store.stats().map_bytes > 1 << 20
        assert len(store) == 60


def test_two_handles_in_a_process_share_the_files(tmp_path):
    with opened(tmp_path / "store") as first, opened(tmp_path / "../" / tmp_path.name / "store") as second:
        first.put(made_key(), made_adapter(), {})
        assert made_key() in second
        first.close()
        assert second.get(made_key()) is not None
        with pytest.raises(StoreError, match="was closed; open it again"):
            first.get(made_key())


def test_a_read_only_handle_does_not_block_a_writing_one(tmp_path):
    opened(tmp_path / "store").close()
    with opened(tmp_path / "store", readonly=True) as reader, opened(tmp_path / "store") as writer:
        writer.put(made_key(), made_adapter(), {})
        assert made_key() in reader
        for forbidden in (
            lambda: reader.put(made_key(), made_adapter(), {}),
            lambda: reader.remove(made_key()),
            lambda: reader.own("a", []),
            lambda: reader.put_json("a", "b", 1),
            reader.gc,
        ):
            with pytest.raises(StoreError, match="readonly=True"):
                forbidden()
        assert made_key() in writer


def test_a_folder_that_was_deleted_and_recreated_is_another_store(tmp_path):
    import shutil

    old = opened(tmp_path / "store")
    old.put(made_key(), made_adapter(), {})
    shutil.rmtree(tmp_path / "store")
    with opened(tmp_path / "store") as new:
        assert len(new) == 0
    old.close()


def test_json_data_can_be_stored_within_limits(store):
    store.put_json("questions", "a key", {"q": ["Wer?", "誰?"], "n": None})
    store.put_json("answers", "a key", 7)
    assert store.get_json("questions", "a key") == {"q": ["Wer?", "誰?"], "n": None}
    assert store.get_json("answers", "a key") == 7
    for table, key in (("t", "k" * 600), ("t\0", "k"), ("t", "k\0")):
        with pytest.raises(ConfigurationError, match="at most 511"):
            store.put_json(table, key, 1)


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


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="encoding is 'int8'"):
        opened(tmp_path / "store", encoding="int8")
    with pytest.raises(ConfigurationError, match="map_size is 5"):
        opened(tmp_path / "store", map_size=5)
    assert not (tmp_path / "store").exists()


def test_an_adapter_whose_buffer_does_not_fit_is_refused(store):
    with pytest.raises(AdapterError, match="needs 128 float32 values"):
        store.put(made_key(), Adapter(LAYOUT, np.zeros(5, np.float32), 1.0), {})


def test_the_whole_subpackage_works_without_torch():
    program = (
        "import sys, json; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import llamaindex_prag.store as s\n"
        "print(json.dumps([getattr(s, n).__name__ for n in s.__all__ if n != 'Encoding']))"
    )
    names = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert LMDBStore.__name__ in names
