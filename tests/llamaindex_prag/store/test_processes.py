"""Several processes on one store: killed writers, concurrent readers, forks, full disks."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from llamaindex_prag.store.folders import LOCKS_FOLDERS
from tests.llamaindex_prag.store.made import made_adapter, made_key, opened

WORKER = [sys.executable, "-m", "tests.llamaindex_prag.store.worker"]


processes = []


@pytest.fixture(autouse=True)
def none_outlives_its_test():
    yield
    while processes:
        processes.pop().kill()


def started(job, path, name):
    process = subprocess.Popen(
        [*WORKER, job, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    return process


def finished(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.splitlines()


def killed_after_a_while(process, rng):
    """Return the lines that the process wrote before it was killed, at a random moment after its first line."""
    lines = [process.stdout.readline()]
    assert lines[0], process.stderr.read()
    timer = threading.Timer(rng.uniform(0, 0.15), process.kill)
    timer.start()
    lines += process.stdout.readlines()
    process.wait()
    timer.join()
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    return [line.split() for line in lines if line.endswith("\n")]


def acknowledged(lines):
    """Return what must exist, and what must not; what was being removed may be either."""
    there, gone, open_ = set(), set(), set()
    for line in lines:
        word, number = line[0], int(line[1])
        if word == "put":
            there.add(number)
        elif word == "removing":
            there.discard(number)
            open_.add(number)
        else:
            open_.discard(number)
            gone.add(number)
    return there, gone


def kill_writers(path, kills, seed):
    rng = random.Random(seed)
    for turn in range(0, kills, 2):
        names = [f"{turn} {i}" for i in (0, 1)]
        writers = [started("write", path, name) for name in names]
        outputs = [killed_after_a_while(writer, rng) for writer in writers]
        with opened(path) as store:
            for name, lines in zip(names, outputs, strict=True):
                there, gone = acknowledged(lines)
                for number in there:
                    key = made_key(f"{name} {number}")
                    np.testing.assert_array_equal(store.get(key).buffer, made_adapter(number).buffer)
                    assert store.record(key) == {"number": number}
                    assert store.owners(key.text) == [f"document {name} {number}"]
                assert not any(made_key(f"{name} {number}") in store for number in gone)
            assert store.verify().ok
            if turn % 6 == 4:
                assert store.gc().reason == ""
                assert store.verify().ok
            assert len(store) > 0


def test_two_writers_killed_at_any_moment_lose_nothing_acknowledged(tmp_path):
    kill_writers(tmp_path / "store", kills=12, seed=0)


@pytest.mark.slow
def test_two_writers_killed_two_hundred_times(tmp_path):
    kill_writers(tmp_path / "store", kills=200, seed=1)


def test_several_processes_create_the_store_at_once(tmp_path):
    makers = [started("create", tmp_path / "store", str(i)) for i in range(4)]
    for maker in makers:
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        maker.stdin.write("\n")
        maker.stdin.flush()
    for maker in makers:
        finished(maker)
    with opened(tmp_path / "store") as store:
        assert set(store.keys()) == {made_key(str(i)) for i in range(4)}


def test_readers_in_other_processes_see_complete_values_during_writes(tmp_path):
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        store.put(made_key("0"), made_adapter(0), {"number": 0})
        readers = [started("read", tmp_path / "store", "the end") for _ in range(2)]
        for reader in readers:
            assert reader.stdout.readline() == "reading\n"
        for i in range(1, 1000):  # more than the readers' initial maps hold
            store.put(made_key(str(i)), made_adapter(i), {"number": i})
        assert store.stats().map_bytes > 1 << 20
        store.put(made_key("the end"), made_adapter(0), {"number": 0})
    for reader in readers:
        assert int(finished(reader)[-1].split()[1]) > 100


def test_other_processes_see_the_generation(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {})
        other = started("hold", tmp_path / "store", "")
        assert other.stdout.readline() == "holding 1 0\n"
        store.remove(made_key())
        assert finished(other) == ["held 0 1"]


def test_what_is_held_already_does_not_wait_for_another_process_that_writes(tmp_path):
    with opened(tmp_path / "store") as store:
        store.hold("index", ["a", "b"])
        writer = started("lock", tmp_path / "store", "c")
        assert writer.stdout.readline() == "locked\n"
        store.hold("index", ["a", "b"])
        waiting = threading.Thread(target=store.hold, args=("index", ["a", "c", "d"]))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive(), "a document that is new to the index was recorded without the lock"
        assert finished(writer) == ["unlocked"]  # only now
        waiting.join(60)
        held = {document.id: sorted(document.indexes) for document in store.documents()}
        assert held == {"a": ["index"], "b": ["index"], "c": ["index", "other"], "d": ["index"]}


@pytest.mark.skipif(not LOCKS_FOLDERS, reason="needs flock")
def test_gc_does_not_replace_a_file_that_another_process_has_open(tmp_path):
    with opened(tmp_path / "store") as store:
        for i in range(30):
            store.put(made_key(str(i)), made_adapter(i), {}, owners=["a"])
        other = started("hold", tmp_path / "store", "")
        assert other.stdout.readline() == "holding 30 0\n"
        store.own("a", [])
        report = store.gc()
        assert (report.compacted, report.removed_adapters) == (False, 30)
        assert "another process has the store open" in report.reason
        assert len(store) == 0
        assert finished(other) == ["held 0 30"]
        assert store.gc().compacted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_and_its_parent_both_keep_working(tmp_path):
    store = opened(tmp_path / "store")
    store.put(made_key("parent"), made_adapter(1), {})
    done = threading.Event()
    reads = []

    def read():
        while not done.is_set():
            reads.append(store.get(made_key("parent")))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for turn in range(5):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    np.testing.assert_array_equal(store.get(made_key("parent")).buffer, made_adapter(1).buffer)
                    store.put(made_key(f"child {turn}"), made_adapter(2), {})
                    store.close()
                    status = 0
                finally:
                    os._exit(status)
            store.put(made_key(f"parent {turn}"), made_adapter(3), {})
            deadline = time.monotonic() + 60
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                assert time.monotonic() < deadline, "the child hangs"
                time.sleep(0.005)
            assert os.waitstatus_to_exitcode(ended[1]) == 0
    finally:
        done.set()
        thread.join()
    assert len(store) == 11
    assert all(np.array_equal(r.buffer, made_adapter(1).buffer) for r in reads[::50])
    assert store.verify().ok
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_is_reported_and_loses_nothing(tmp_path):
    *puts, reason, kept = finished(started("fill", tmp_path / "store", "x"))
    assert reason.startswith("StoreFullError")
    assert "is full" in reason
    assert "intact" in reason
    assert kept == f"kept {len(puts)}"
    with opened(tmp_path / "store") as store:
        assert len(store) == len(puts)
        assert store.verify().ok
        store.put(made_key(f"x {len(puts)}"), made_adapter(), {})
