"""Many threads on one engine: the same texts, fewer forwards, nobody stuck."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_backbone.batch import StepSharing
from rag_backbone.engine import Engine
from rag_backbone.fair_lock import FairLock, Turn
from rag_backbone.kv_cache import SequenceCache
from rag_backbone.requests import Request
from rag_backbone.signals import Signals
from tests.rag_backbone.test_prefill import forwards_of
from tests.rag_backbone.test_riders import wait_until
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPTS = [
    f"{start} {'the river rose ' * n}" for n, start in enumerate(["In 1954", "Nobody", "A letter", "The town"] * 6)
]


@pytest.fixture
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


def request(i: int) -> Request:
    return Request(PROMPTS[i], 5 + i % 17, signals=Signals(entropy=True, attention=i % 3 == 0))


def test_concurrent_generations_give_what_each_gives_alone(engine):
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


def test_readers_that_pause_leave_or_fail_hold_nobody_up(engine):
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
    """The waits for other rows that had an end."""
    found, condition = [], engine._together._changed
    original = condition.wait

    def watched(timeout=None):
        if timeout is not None:
            found.append(timeout)
        return original(timeout)

    monkeypatch.setattr(condition, "wait", watched)
    return found


def test_one_thread_that_reads_two_streams_in_turn_waits_for_neither(engine, waits):
    with engine.stream(request(5)) as a, engine.stream(request(6)) as b:
        steps = list(zip(a, b, strict=False))
    assert len(steps) >= 10
    assert not waits


def test_threads_that_take_turns_are_waited_for_once(engine, waits):
    a, b = engine.stream(request(5)), engine.stream(request(6))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other, a, b:
        for _ in range(8):
            one.submit(next, a).result(timeout=60)
            other.submit(next, b).result(timeout=60)
        assert 1 <= len(waits) <= 2
        assert a._row.awaited_in_vain
        assert b._row.awaited_in_vain


def test_who_comes_while_a_step_waits_for_the_model_takes_part(engine):
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(4)]
    streams = [engine.stream(request(i)) for i in range(4)]
    for stream in streams:
        next(stream)
    forwards = forwards_of(engine)
    with ThreadPoolExecutor(4) as pool:
        with engine._lock:
            steps = [pool.submit(next, streams[0])]
            wait_until(lambda: engine._lock._waiting)
            steps += [pool.submit(next, stream) for stream in streams[1:]]
            wait_until(lambda: len(engine._together._arrived) == 4)
        assert [step.result(30).index for step in steps] == [1] * 4
    assert forwards == [4]
    for stream in streams:
        list(stream)
    assert [stream.generation().token_ids for stream in streams] == expected


def test_a_failing_forward_reaches_every_row_of_it_and_no_later_one(engine):
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


def test_a_fair_lock_goes_to_who_asked_first():
    lock, order, asked = FairLock(), [], []

    def take(i):
        asked.append(i)
        with lock:
            order.append(i)

    with lock:
        threads = []
        for i in range(6):
            threads.append(threading.Thread(target=take, args=(i,)))
            threads[-1].start()
            while len(lock._waiting) <= i:
                time.sleep(0.001)
    for thread in threads:
        thread.join(5)
    assert order == list(range(6))
    with lock:
        pass


def test_a_turn_can_be_withdrawn_by_who_has_the_lock():
    lock, turns = FairLock(), [Turn() for _ in range(4)]
    order = []

    def take(i):
        if lock.take(turns[i]):
            order.append(i)
            lock.release()
        else:
            order.append(-i)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(4)]
    with lock:
        for i, thread in enumerate(threads):
            thread.start()
            while len(lock._waiting) <= i:
                time.sleep(0.001)
        assert lock.withdraw(turns[1])
        assert not lock.withdraw(turns[1])
        assert not lock.withdraw(Turn())
    for i in (0, 2, 3):
        threads[i].join(5)
    assert order == [0, 2, 3]
    assert threads[1].is_alive()  # until whoever has done its work says so
    turns[1].set()
    threads[1].join(5)
    assert order == [0, 2, 3, -1]
    assert lock.take_if_free()


def test_a_dropped_stream_that_is_collected_during_a_forward_of_its_thread_blocks_nothing(engine):
    """The collector runs whenever something is allocated: also while this very thread holds the engine."""
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
    assert not engine._ended


def test_a_lock_that_is_held_or_being_changed_is_not_waited_for():
    lock = FairLock()
    assert lock.take_if_free()
    assert not lock.take_if_free()
    lock.__exit__(None, None, None)
    with lock._guard:
        assert not lock.take_if_free()
    assert lock.take_if_free()


def test_a_row_that_was_left_while_it_waited_is_not_in_the_step(engine):
    """It has no sequence any more; taken for a prompt it would change what the others compute."""
    ends = [request(0), request(1), Request(PROMPTS[2], 9, signals=Signals(hidden_state=0))]
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(r) for r in ends]
    rows = [engine._admit(r) for r in ends]
    for row in rows:
        engine.step([row])
    rows[0].cancel()
    engine.release(rows[0])
    assert engine.step(rows) == {}
    assert engine.step(rows[:1]) == {}
    for row, found in zip(rows[1:], expected[1:], strict=True):
        assert row.generated == list(found.token_ids[:2])
    assert (rows[2].steps[1].hidden_state - expected[2].steps[1].hidden_state).abs().max() < 1e-4


class _Interrupt(BaseException):
    """Ctrl-C, in one thread."""


@pytest.mark.parametrize("where", ["waits", "computes"])
def test_who_is_interrupted_leads_nobody_astray(engine, where, monkeypatch):
    """Its own generation ends; the others' go on, and so does the engine."""
    expected = [Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(4)]
    victim, done = threading.Event(), threading.Event()
    name = "_wait_for_expected" if where == "waits" else "_keep_ended"
    owner = StepSharing if where == "waits" else Engine
    original = getattr(owner, name)

    def interrupted(self):
        if threading.current_thread().name == "victim" and victim.is_set() and not done.is_set():
            done.set()
            raise _Interrupt
        original(self)

    monkeypatch.setattr(owner, name, interrupted)
    caught = []

    def be_interrupted():
        while not done.is_set():
            try:
                with engine.stream(request(3)) as stream:
                    for _ in stream:
                        victim.set()
            except _Interrupt as error:
                caught.append(error)

    thread = threading.Thread(target=be_interrupted, name="victim")
    with ThreadPoolExecutor(3) as pool:
        thread.start()
        found = [pool.submit(engine.generate, request(i)) for i in range(3)]
        assert [f.result(60).token_ids for f in found] == expected[:3]
    thread.join(60)
    assert len(caught) == 1
    assert engine.generate(request(3)).token_ids == expected[3]


def test_a_forward_that_fails_leaves_no_state_that_cannot_be_rolled_back(engine, monkeypatch):
    """Some layers have taken the token in and others have not; nobody may go on with that."""
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
