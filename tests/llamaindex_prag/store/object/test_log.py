"""Records and snapshots: what is merged, when it is deleted, and readers that do not notice."""

import os
import signal
import threading
import time

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.store.object import log as records
from tests.llamaindex_prag.store.made import made_adapter, made_key


def names(tmp_path):
    return sorted(p.name[:2] for p in (tmp_path / "store/log").iterdir())


def grown_old(tmp_path, seconds):
    """Let the store's objects be older, by the file server's clock."""
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


def test_records_are_merged_and_deleted_once_the_snapshot_is_in_every_listing(hosts, tmp_path):
    with hosts() as store, hosts() as other:
        for number in range(3):
            store.put(made_key(str(number)), made_adapter(), {}, owners=[f"d{number}"])
        store.gc()
        assert names(tmp_path) == ["r-", "r-", "r-", "s-"]
        grown_old(tmp_path, records.SETTLED + 1)
        store.gc()
        assert names(tmp_path) == ["s-"]
        other.put(made_key("3"), made_adapter(), {})
        assert len(store) == len(other) == 4
        with hosts() as third:
            assert third.keys() == store.keys() == other.keys()
            assert third.documents() == store.documents()


def test_records_that_a_snapshot_covers_are_not_read(hosts, tmp_path):
    with hosts() as store:
        for number in range(3):
            store.put(made_key(str(number)), made_adapter(), {})
        store.gc()
    for path in (tmp_path / "store/log").glob("r-*"):
        path.write_bytes(b"not read")
    with hosts() as store:
        assert len(store) == 3


def test_a_snapshot_is_replaced_by_a_later_one(hosts, tmp_path):
    with hosts() as store:
        for number in range(4):
            store.put(made_key(str(number)), made_adapter(), {})
            store.put_json("t", str(number), 1)
            grown_old(tmp_path, records.SETTLED + 1)
            store.gc()
        grown_old(tmp_path, records.SETTLED + 1)
        store.gc()
        assert names(tmp_path) == ["s-"]
    with hosts() as store:
        assert len(store) == 4


def test_two_hosts_that_merge_at_once_lose_nothing(hosts, tmp_path):
    with hosts() as one, hosts() as other:
        one.put(made_key("a"), made_adapter(), {}, owners=["a"])
        other.put(made_key("b"), made_adapter(), {}, owners=["b"])
        one._log.merge(least=1)
        one.remove_document("a")
        other._log.merge(least=1)
        grown_old(tmp_path, records.SETTLED + 1)
        one._log.merge(least=1)
        other._log.merge(least=1)
        with hosts() as third:
            assert third.keys() == [made_key("b")]


def test_a_writer_merges_by_itself_when_there_are_many(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MANY", 8)
    monkeypatch.setattr(records, "SETTLED", 10.0)
    with hosts() as store:
        for number in range(30):
            store.own_also(f"d{number}", [text_hash("t")])
            grown_old(tmp_path, 11.0)
            store._log._merged_at -= 11.0
        assert len(names(tmp_path)) < 12
        assert len(store.documents()) == 30


def test_a_forked_process_writes_as_another_writer(hosts):
    with hosts() as store:
        store.put_json("t", "before", 1)
        if (child := os.fork()) == 0:
            try:
                store.put_json("t", "child", 2)
                os._exit(0)
            finally:
                os._exit(1)
        store.put_json("t", "parent", 3)
        assert os.waitpid(child, 0)[1] == 0
        assert [store.get_json("t", key) for key in ("before", "child", "parent")] == [1, 2, 3]


def test_a_process_is_forked_while_another_thread_connects(hosts, monkeypatch):
    with hosts() as store:
        store.put_json("t", "before", 1)
        opened = store._files._opened
        monkeypatch.setattr(store._files, "_opened", lambda: time.sleep(0.5) or opened())
        monkeypatch.setattr(store._files, "_opened_by", (0, None))
        connecting = threading.Thread(target=store._files._system)
        connecting.start()
        if (child := os.fork()) == 0:
            try:
                signal.alarm(20)  # if it hangs
                store.put_json("t", "child", 2)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        connecting.join()
        assert store.get_json("t", "child") == 2


def test_a_process_that_slept_reads_the_records_again():
    before = records.elapsed()
    time.sleep(0.01)
    assert 0.009 < records.elapsed() - before < 60


@pytest.mark.parametrize("kind", ["r-", "s-"])
def test_records_of_a_removed_document_are_merged_away(hosts, tmp_path, kind):
    with hosts(grace=0.0) as store:
        store.put(made_key(), made_adapter(), {}, owners=["a secret document"])
        if kind == "s-":
            store._log.merge(least=1)
        store.remove_document("a secret document")
        grown_old(tmp_path, records.SETTLED + 1)
        for _ in range(2):
            store.gc()
            grown_old(tmp_path, records.SETTLED + 1)
        store.gc()
        assert names(tmp_path) == ["s-"]
        assert not store._log.state.facts
        assert not list((tmp_path / "store/objects").iterdir())
