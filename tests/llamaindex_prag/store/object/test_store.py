"""A shared store as its users see it: several hosts, what they read and for how long, and what it refuses."""

import json
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.errors import AdapterDamagedError, AdapterMissingError, StoreError
from llamaindex_prag.store import AdapterStore, LMDBStore, ObjectStore, open_store
from llamaindex_prag.store.object import log as records
from tests.llamaindex_prag.store.made import LAYOUT, MODEL, OTHER_MODEL, made_adapter, made_key, opened, shared


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(records, "elapsed", lambda: now[0])
    return now


def test_object_store_implements_adapter_store(hosts):
    assert isinstance(hosts(), AdapterStore)


def test_a_removed_document_is_gone_for_every_reader_after_the_delay(hosts, clock):
    with hosts() as writer, hosts(removal_delay=30.0, readonly=True, model=None) as reader:
        writer.put(made_key(), made_adapter(), {}, owners=["d"])
        assert made_key() in reader
        seen = reader.generation
        clock[0] += 1
        assert writer.remove_document("d") == [made_key().text]
        clock[0] += 28.9
        assert made_key() in reader
        clock[0] += 0.2
        assert reader.generation > seen
        assert reader.get(made_key()) is None
        with pytest.raises(AdapterMissingError, match="train it first"):
            reader.read_into(made_key(), np.empty(LAYOUT.size, np.float32))


def test_a_reader_that_cannot_ask_serves_nothing_old(through_proxy, proxy, clock):
    with through_proxy() as writer, through_proxy(removal_delay=30.0, attempts=1) as reader:
        writer.put(made_key(), made_adapter(), {}, owners=["d"])
        assert reader.get(made_key()) is not None
        proxy.fault = lambda method, path: "unavailable"
        clock[0] += 29
        assert reader.get(made_key()) is not None  # from the cache
        clock[0] += 2
        for call in (reader.get, reader.digest, lambda key: key in reader, lambda _: reader.generation):
            with pytest.raises(StoreError, match="could not be listed"):
                call(made_key())


def test_a_removed_adapter_leaves_the_local_cache(hosts, tmp_path):
    with hosts() as store, hosts() as reader:
        store.put(made_key(), made_adapter(), {}, owners=["d"])
        reader.get(made_key())
        digest = reader.digest(made_key())
        caches = [tmp_path / "cache-0" / digest, tmp_path / "cache-1" / digest]
        assert all(path.exists() for path in caches)
        store.remove_document("d")
        assert made_key() not in reader
        assert not any(path.exists() for path in caches)


def test_what_is_cached_is_read_once(through_proxy, proxy):
    with through_proxy() as store:
        for number in range(3):
            store.put(made_key(str(number)), made_adapter(number), {})
    with through_proxy(removal_delay=60.0) as store:
        keys, outs = store.keys(), [np.empty(LAYOUT.size, np.float32) for _ in range(3)]
        proxy.requests.clear()
        assert store.read_many(keys, outs) == [16.0] * 3
        assert [method for method, path, _ in proxy.requests if "/objects/" in path] == ["GET"] * 3
        assert {tuple(out) for out in outs} == {tuple(made_adapter(number).buffer) for number in range(3)}
        proxy.requests.clear()
        store.read_many(keys, outs)
        assert proxy.requests == []


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]])
def test_damaged_objects_are_refused_by_name_and_found_by_verify(hosts, tmp_path, change):
    with hosts() as store:
        for text in ("one", "two"):
            store.put(made_key(text), made_adapter(), {})
        first = store.keys()[0]
        path = next(p for p in (tmp_path / "store/objects").iterdir() if p.name.endswith(store.digest(first)))
        path.write_bytes(change(path.read_bytes()))
    with hosts() as store:
        [(key, reason)] = store.verify().damaged
        assert path.name in reason
        with pytest.raises(AdapterDamagedError, match=f"{key.text[:12]}.*{path.name} is damaged"):
            store.get(key)
        path.unlink()
        with pytest.raises(AdapterDamagedError, match="does not exist"):
            store.get(key)
        assert store.remove(key) == 1
        assert store.verify().ok


def test_a_damaged_record_is_refused_by_name(hosts, tmp_path):
    with hosts() as store:
        store.put(made_key(), made_adapter(), {})
    path = next((tmp_path / "store/log").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AdapterDamagedError, match=f"{path.name} is damaged"):
        hosts().keys()


def test_damage_in_the_cache_is_repaired_from_the_server(hosts, tmp_path):
    with hosts() as store:
        store.put(made_key(), made_adapter(), {})
        (tmp_path / "cache-0" / store.digest(made_key())).write_bytes(b"damaged")
        np.testing.assert_array_equal(store.get(made_key()).buffer, made_adapter().buffer)


def test_bytes_of_removed_documents_stay_for_the_grace_only(hosts, tmp_path):
    objects = tmp_path / "store/objects"
    with hosts(grace=3600.0) as store:
        store.put(made_key(), made_adapter(), {}, owners=["d"])
        store.remove_document("d")
        report = store.gc()
        assert (report.compacted, report.bytes_after > 0) == (False, True)
        assert "1 texts removed less than 3600 s ago" in report.reason
    with hosts(grace=0.0) as store:
        assert store.gc().bytes_after == 0
        assert not list(objects.iterdir())


def test_objects_that_no_record_names_stay_for_the_grace_only(hosts, tmp_path):
    with hosts(grace=3600.0) as store:
        store._uploaded(b"the process was killed before it wrote the record")
        assert "1 objects younger" in store.gc().reason
        [path] = (tmp_path / "store/objects").iterdir()
        os.utime(path, (time.time() - 3601,) * 2)
        assert store.gc().reason == ""
        assert not path.exists()


def test_what_killed_processes_left_stays_for_the_grace_only(hosts, tmp_path):
    with hosts(grace=3600.0) as store:
        store.put(made_key(), made_adapter(), {})
        left = [tmp_path / "store" / name for name in (".tmp-1", "objects/.tmp-2", "log/.tmp-3", "probe/4")]
        for path in left:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"written by a process that was killed")
        store.gc()
        assert all(path.exists() for path in left)
        for path in left:
            os.utime(path, (time.time() - 3601,) * 2)
        store.gc()
        assert not any(path.exists() for path in left)
        assert store.verify().checked == 1


def test_a_replaced_adapter_is_deleted_by_gc_at_once(hosts, tmp_path):
    with hosts() as store, hosts(removal_delay=60.0) as reader:
        store.put(made_key(), made_adapter(1), {})
        assert reader.digest(made_key())
        store.put(made_key(), made_adapter(2), {})
        store.gc()
        assert len(list((tmp_path / "store/objects").iterdir())) == 1
        # A reader that did not know yet finds out when the bytes are gone.
        np.testing.assert_array_equal(reader.get(made_key()).buffer, made_adapter(2).buffer)


def test_a_store_of_another_model_version_or_kind_is_refused(hosts, tmp_path):
    hosts().close()
    with pytest.raises(StoreError, match=f"fingerprint {MODEL[:12]}.*yours has {OTHER_MODEL[:12]}"):
        hosts(model=OTHER_MODEL)
    path = tmp_path / "store/format.json"
    content = json.loads(path.read_text())
    for change, match in (
        ({"version": 2}, "format version 2; this release reads up to 1"),
        ({"format": "photos"}, "calls itself 'photos'"),
        ({"version": "x"}, "is not an adapter store"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(StoreError, match=match):
            hosts()
    path.rename(tmp_path / "store/other.json")
    with pytest.raises(StoreError, match=r"it has objects, but no format\.json"):
        hosts()
    with pytest.raises(StoreError, match="there is no store at"):
        hosts(readonly=True)
    with pytest.raises(StoreError, match="give the model's fingerprint"):
        shared(f"file://{tmp_path}/none", model=None)


def test_a_closed_or_readonly_store_says_so(hosts):
    store = hosts()
    store.put(made_key(), made_adapter(), {})
    with hosts(readonly=True) as reader, pytest.raises(StoreError, match="open it again without readonly"):
        reader.remove(made_key())
    store.close()
    assert "closed" in repr(store)
    for call in (store.keys, lambda: store.put(made_key(), made_adapter(), {})):
        with pytest.raises(StoreError, match="was closed; open it again with ObjectStore"):
            call()


def test_a_store_is_opened_from_a_folder_a_url_or_its_description(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    opened(tmp_path / "folder").close()
    hosts().close()
    with open_store(str(tmp_path / "folder"), model=MODEL) as store:
        assert isinstance(store, LMDBStore)
        assert isinstance(open_store(store.described(), model=None), LMDBStore)
    with open_store(f"file://{tmp_path}/store", model=None, readonly=True) as store:
        assert isinstance(store, ObjectStore)
        assert open_store(store.described(), model=None).readonly
    secrets = {
        "key": "a",
        "secret": "b",
        "passphrase": "e",
        "client_kwargs": {"region_name": "c", "aws_session_token": "d", "headers": {"Authorization": "Basic f"}},
    }
    store._options = secrets
    assert store.described()["storage_options"] == {"client_kwargs": {"region_name": "c", "headers": {}}}


def test_hosts_that_create_a_store_for_two_models_agree_on_one():
    url = f"memory://{uuid.uuid4().hex}"
    shared(url).close()
    with pytest.raises(StoreError, match="adapters fit one model only"):
        shared(url, model=OTHER_MODEL)


def test_side_entries_of_a_removed_text_are_gone_for_others(hosts):
    text = text_hash("t")
    with hosts() as store, hosts() as other:
        store.put(made_key("t"), made_adapter(), {}, owners=["d"])
        store.put_json("questions", text, ["?"])
        assert other.get_json("questions", text) == ["?"]
        other.remove_document("d")
        assert store.get_json("questions", text) is None


@pytest.fixture
def rapid_switches():
    """Threads take turns far more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.gc(dry_run=True),
        lambda store: store.put(made_key("again"), made_adapter(), {}),
    ],
    ids=["gc", "put"],
)
def test_a_thread_calls_a_store_while_another_one_changes_it(tmp_path, rapid_switches, call):
    with shared(f"memory://{uuid.uuid4().hex}", removal_delay=0.0, cache=tmp_path, cache_bytes=0) as store:
        store.own_also("long", [text_hash(f"{number}") for number in range(1000)])
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(lambda: [store.own_also(f"d{number}", [text_hash("t")]) for number in range(150)])
            while not writing.done():
                call(store)
        assert len(store.documents()) == 151
