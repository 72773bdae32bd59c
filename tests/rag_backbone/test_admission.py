"""How many generations of several threads are under way at once, and that nobody waits for what nobody reads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_backbone import admission
from rag_backbone.engine import Engine
from rag_backbone.requests import Request
from tests.tiny import tiny_llama, tiny_tokenizer


def request(i: int, tokens: int = 12) -> Request:
    return Request([5 + i, 6, 7 + i], tokens)


@pytest.fixture
def engine():
    return Engine(tiny_llama(), tiny_tokenizer(), max_batch=2)


def test_no_more_than_that_hold_keys_and_values(engine, monkeypatch):
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(12)]
    rows, most, original = set(), [], Engine.feed

    def fed(self, those):
        rows.update(those)
        most.append(sum(row.sequence is not None and row.finish_reason is None for row in rows))
        return original(self, those)

    monkeypatch.setattr(Engine, "feed", fed)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: engine.generate(request(i)).token_ids, range(12)))
    assert found == expected
    assert max(most) <= 2
    assert len(rows) == 12


def test_streams_that_one_thread_reads_in_turn_are_not_held_up(engine):
    started = time.monotonic()
    streams = [engine.stream(request(i)) for i in range(6)]
    found = [list(steps) for steps in zip(*streams, strict=True)]
    assert len(found) == 12
    assert time.monotonic() - started < 6 * admission._IDLE


def test_streams_that_nobody_reads_keep_nobody_out(engine):
    held = [engine.stream(request(i)) for i in range(2)]
    with ThreadPoolExecutor(1) as pool:
        for stream in held:
            pool.submit(next, stream).result(10)
    assert len(engine.generate(request(5)).token_ids) == 12
    assert [len(list(stream)) for stream in held] == [11, 11]


def test_first_come_first_served_and_who_leaves_is_forgotten(engine, monkeypatch):
    monkeypatch.setattr(admission, "_IDLE", 60.0)
    held = [engine.stream(request(i)) for i in range(2)]
    with ThreadPoolExecutor(1) as pool:
        for stream in held:
            pool.submit(next, stream).result(10)
    order, waiting = [], [engine.stream(request(i, 1)) for i in range(4)]

    def read(i):
        order.extend(i for _ in waiting[i])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for n, thread in enumerate(threads):
        thread.start()
        while len(engine._admission._queue) <= n:
            time.sleep(0.001)
    assert order == []
    waiting[0].close()  # while it is next
    waiting[2].close()
    held[1].close()
    for thread in threads:
        thread.join(10)
    assert order == [1, 3]
    assert not engine._admission._queue
    held[0].close()
