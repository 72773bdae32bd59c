"""The readers-writer lock: readers together, writers alone and first."""

import threading

import pytest

from rag_backbone.read_write_lock import ReadWriteLock
from tests.rag_backbone.busy import wait_until


def started(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_readers_hold_the_lock_together():
    lock, meeting = ReadWriteLock(), threading.Barrier(3, timeout=30)

    def read():
        with lock.shared():
            meeting.wait()

    threads = [started(read) for _ in range(2)]
    meeting.wait()  # all of them are inside
    for thread in threads:
        thread.join(30)


def test_a_waiting_writer_comes_before_later_readers():
    lock, order = ReadWriteLock(), []

    def write():
        with lock.alone():
            order.append("writer")

    def read():
        with lock.shared():
            order.append("reader")

    with lock.shared():
        writer = started(write)
        wait_until(lambda: lock._waiting == 1)
        reader = started(read)
        assert order == []
    for thread in (writer, reader):
        thread.join(30)
    assert order == ["writer", "reader"]


def test_writers_exclude_each_other_and_the_write_lock_is_reentrant():
    lock, counts = ReadWriteLock(), [0]

    def count():
        for _ in range(200):
            with lock.alone(), lock.alone():
                counts[0] += 1

    threads = [started(count) for _ in range(4)]
    for thread in threads:
        thread.join(30)
    assert counts == [800]


def test_the_lock_is_released_after_an_error():
    lock = ReadWriteLock()
    for held in (lock.shared, lock.alone):
        with pytest.raises(KeyError), held():
            raise KeyError("stop")
    with lock.alone():
        assert lock._inside == 0
