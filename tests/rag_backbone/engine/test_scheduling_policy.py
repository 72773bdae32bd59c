"""Many threads on one engine: the same texts with fewer forward passes, and no caller starves."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_backbone.engine import scheduling_policy as turns
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.engine.worker import Worker
from tests.rag_backbone.busy import forwards_of, held, wait_until
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPTS = [
    f"{start} {'the river rose ' * n}" for n, start in enumerate(["In 1954", "Nobody", "A letter", "The town"] * 6)
]


@pytest.fixture
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


def request(i: int) -> Request:
    return Request(PROMPTS[i], 5 + i % 17, signals=Signals(entropy=True, attention=i % 3 == 0))


def test_concurrent_generations_match_generations_run_alone(engine):
    alone = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)) for i in range(len(PROMPTS))]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: engine.generate(request(i)), range(len(PROMPTS))))
    assert [g.token_ids for g in together] == [g.token_ids for g in alone]
    for a, b in zip(alone, together, strict=True):
        assert [s.entropy for s in b.steps] == pytest.approx([s.entropy for s in a.steps], abs=1e-3)
        assert all(
            (x.attention - y.attention).abs().max() < 1e-3
            for x, y in zip(a.steps, b.steps, strict=True)
            if x.attention is not None
        )
    assert engine.counts.forwards < sum(g.counts.forwards for g in alone)


def test_readers_that_pause_leave_or_fail_do_not_delay_others(engine):
    expected = Engine(tiny_llama(), tiny_tokenizer()).generate(request(5)).token_ids
    rng = random.Random(0)

    def restless(i):
        with engine.stream(request(i)) as stream:
            for step in stream:
                if step.index == i % 4:
                    if i % 3 == 0:
                        return
                    time.sleep(rng.random() * 0.05)
                if i % 5 == 4 and step.index == 2:
                    raise RuntimeError("reader failed")

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(restless, i % len(PROMPTS)) for i in range(30)]
        found = [pool.submit(engine.generate, request(5)) for _ in range(4)]
        assert all(f.result(timeout=60).token_ids == expected for f in found)
        failures = [o.exception(timeout=60) for o in others]
    assert {str(f) for f in failures if f is not None} == {"reader failed"}


@pytest.fixture
def waits(monkeypatch, engine):
    """Record how long steps were prepared to wait for other sequences, each time that they waited."""
    found, turns = [], engine._scheduler._turns
    original = turns._note_next

    def watched(seconds):
        found.append(seconds)
        return original(seconds)

    monkeypatch.setattr(turns, "_note_next", watched)
    return found


def test_two_streams_read_by_one_thread_are_not_waited_for(engine, waits):
    with engine.stream(request(5)) as a, engine.stream(request(6)) as b:
        steps = list(zip(a, b, strict=False))
    assert len(steps) >= 10
    assert not waits


def test_threads_that_alternate_are_waited_for_once(engine, waits):
    a, b = engine.stream(request(5)), engine.stream(request(6))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other, a, b:
        for _ in range(8):
            one.submit(next, a).result(timeout=60)
            other.submit(next, b).result(timeout=60)
        assert 1 <= len(waits) <= 3
        assert a._row.missed_batch
        assert b._row.missed_batch


def test_late_arrivals_join_the_waiting_step(engine):
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(4)]
    streams = [engine.stream(request(i)) for i in range(4)]
    for stream in streams:
        next(stream)
    forwards = forwards_of(engine)
    with ThreadPoolExecutor(4) as pool:
        with held(engine) as inbox:
            steps = [pool.submit(next, stream) for stream in streams]
            wait_until(lambda: inbox.qsize() == 4)
        assert [step.result(30).index for step in steps] == [1] * 4
    assert forwards == [4]
    for stream in streams:
        list(stream)
    assert [stream.generation().token_ids for stream in streams] == expected


def test_a_failing_forward_pass_affects_all_sequences_of_its_batch_and_no_later_ones(engine):
    assert engine.shares_steps
    expected = engine.generate(request(2)).token_ids
    engine.prefixes.clear()
    original, broken = engine.model.forward, threading.Event()

    def forward(**arguments):
        if broken.is_set():
            raise RuntimeError("device lost")
        return original(**arguments)

    engine.model.forward = forward
    streams = [engine.stream(request(i)) for i in (2, 6)]
    for stream in streams:
        next(stream)
    broken.set()
    with ThreadPoolExecutor(2) as pool:
        failures = [f.exception() for f in [pool.submit(next, s) for s in streams]]
    assert [str(f) for f in failures] == ["device lost"] * 2
    broken.clear()
    for stream in streams:
        stream.close()
    assert engine.generate(request(2)).token_ids == expected


def test_garbage_collecting_a_stream_during_a_forward_pass_does_not_deadlock(engine):
    """Any allocation can trigger garbage collection, even in the thread that runs the model."""
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(4)]
    dropped = []

    def collect(*_):
        while dropped:
            dropped.pop().close()

    engine.model.register_forward_pre_hook(collect)

    def work():
        for i in range(4):
            stream = engine.stream(request(i + 4))
            next(stream)
            dropped.append(stream)
            found.append(engine.generate(request(i)).token_ids)

    found = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "stuck"
    assert found == expected
    assert not dropped
    engine.generate(request(0))
    engine._scheduler.run(lambda: None)
    assert not engine._scheduler._turns._under_way


def test_a_failing_forward_pass_discards_state_that_cannot_be_rolled_back(engine, monkeypatch):
    """Some layers have already appended the token and others have not, so the cache must not be continued."""
    monkeypatch.setattr(SequenceCache, "can_roll_back", False)
    expected = engine.generate(Request(PROMPTS[0], 6)).token_ids
    engine.prefixes.clear()
    layer, calls = engine.model.get_decoder().layers[1], []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("device lost")

    handle = layer.register_forward_hook(fail)
    with engine.stream(Request(PROMPTS[0], 6)) as stream:
        found = [next(stream), next(stream)]
        with pytest.raises(RuntimeError, match="device lost"):
            next(stream)
    handle.remove()
    assert [step.token_id for step in found] == list(expected[:2])
    assert len(engine.prefixes) == 0
    assert engine.generate(Request(PROMPTS[0], 6)).token_ids == expected


# ---------------------------------------------------------------------------------------------------------- admission


def few():
    return Engine(tiny_llama(), tiny_tokenizer(), max_batch=2)


def short(i: int, tokens: int = 12) -> Request:
    return Request([5 + i, 6, 7 + i], tokens)


def test_no_more_than_max_batch_sequences_hold_keys_and_values(monkeypatch):
    engine = few()
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(short(i)).token_ids for i in range(12)]
    rows, most, original = set(), [], Worker._feed

    def fed(self, those, new, **options):
        rows.update(those)
        most.append(sum(row.sequence is not None and row.finish_reason is None for row in rows))
        return original(self, those, new, **options)

    monkeypatch.setattr(Worker, "_feed", fed)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda i: engine.generate(short(i)).token_ids, range(12)))
    assert found == expected
    assert max(most) <= 2
    assert len(rows) == 12


def test_streams_that_one_thread_reads_in_turn_are_not_delayed():
    engine, started = few(), time.monotonic()
    streams = [engine.stream(short(i)) for i in range(6)]
    found = [list(steps) for steps in zip(*streams, strict=True)]
    assert len(found) == 12
    assert time.monotonic() - started < 6 * turns._IDLE


def test_idle_streams_do_not_block_others():
    engine = few()
    held_back = [engine.stream(short(i)) for i in range(2)]
    with ThreadPoolExecutor(1) as pool:
        for stream in held_back:
            pool.submit(next, stream).result(10)
    assert len(engine.generate(short(5)).token_ids) == 12
    assert [len(list(stream)) for stream in held_back] == [11, 11]


def test_requests_are_served_in_order_and_closed_streams_are_skipped(monkeypatch):
    monkeypatch.setattr(turns, "_IDLE", 60.0)
    engine = few()
    held_back = [engine.stream(short(i)) for i in range(2)]
    with ThreadPoolExecutor(1) as pool:
        for stream in held_back:
            pool.submit(next, stream).result(10)
    order, waiting = [], [engine.stream(short(i, 1)) for i in range(4)]

    def read(i):
        order.extend(i for _ in waiting[i])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for n, thread in enumerate(threads):
        thread.start()
        wait_until(lambda: len(engine._scheduler._turns._asks) == n + 1)  # noqa: B023 - called immediately
    assert order == []
    waiting[0].close()  # while it is next in line
    waiting[2].close()
    held_back[1].close()
    for thread in threads:
        thread.join(10)
    assert order == [1, 3]
    held_back[0].close()
    assert engine.generate(short(9, 2)).token_ids
