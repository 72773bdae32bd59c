"""Rows that wait behind a prompt: their tokens come from its forward, one each, and are those of generating alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rag_backbone import batch
from rag_backbone.engine import Engine
from rag_backbone.errors import AdapterError
from rag_backbone.requests import Request
from rag_backbone.row import Row
from rag_backbone.signals import Signals
from tests.rag_backbone.test_engine import Shift, ShiftBackend
from tests.rag_backbone.test_prefill import Fragile, PackedShiftBackend, alike, forwards_of, prompt
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

MODELS = {
    "llama": tiny_llama, "qwen2": tiny_qwen2, "gemma3, windows": lambda: tiny_gemma3(sliding_window=6),
    "half precision": lambda: tiny_llama().to(torch.bfloat16),
}  # fmt: skip


def request(i, length, tokens=6, **options):
    return Request(prompt(i, length), tokens, signals=Signals(entropy=True, attention=i % 2 == 0), **options)


def ride(engine, decoding, new):
    """Let generations that are decoding wait behind a new prompt: all results, the forwards, what each stream had then.

    The prompt's forward comes first in the queue, and whoever decodes has come before it begins.
    """
    assert engine.shares_steps
    streams = [engine.stream(r) for r in decoding]
    for stream in streams:
        next(stream)
    forwards = forwards_of(engine)
    with ThreadPoolExecutor(len(streams) + 1) as pool:
        with engine._lock:
            prompts = pool.submit(engine.generate, new)
            wait_until(lambda: len(engine._lock._waiting) == 1)
            steps = [pool.submit(next, stream) for stream in streams]
            wait_until(lambda: len(engine._together._arrived) == len(streams) and len(engine._lock._waiting) == 2)
        for step in steps:
            step.exception(30)
        prompts.exception(30)
    return streams, steps, prompts, forwards


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("name", MODELS)
def test_waiting_rows_get_one_token_each_from_a_prompts_forward(name):
    model = MODELS[name]()
    decoding, new = [request(i, 30 + i) for i in range(3)], request(7, 50, 1)
    expected = [Engine(model, tiny_tokenizer()).generate(r) for r in [*decoding, new]]
    streams, steps, prompts, forwards = ride(Engine(model, tiny_tokenizer()), decoding, new)
    assert forwards == [50 + 3]
    assert [step.result().index for step in steps] == [1] * 3
    assert [len(stream._row.generated) for stream in streams] == [2] * 3
    if name != "half precision":
        alike([prompts.result()], expected[3:])
        for stream in streams:
            list(stream)
        alike([stream.generation() for stream in streams], expected[:3])


@pytest.mark.parametrize("leads", ["a rider", "another"])
def test_who_cannot_ride_has_the_next_step_whoever_led(leads):
    """A leader that rode makes the step that another row asked for with it, without taking part."""
    cannot = Request(prompt(1, 30), 6, stop_when=lambda _: False)
    decoding = [request(2, 30), cannot] if leads == "a rider" else [cannot, request(2, 30)]
    _, steps, _, forwards = ride(Engine(tiny_llama(), tiny_tokenizer()), decoding, request(7, 50, 1))
    assert [step.result().index for step in steps] == [1, 1]
    assert forwards == [50 + 1, 1]


def test_a_leader_that_rode_leaves_the_step_to_whoever_comes_next_and_takes_part(monkeypatch):
    monkeypatch.setattr(batch, "_PATIENCE", 10.0)
    engine = Engine(tiny_llama(), tiny_tokenizer())
    assert engine.shares_steps
    leader, late = streams = [engine.stream(request(i, 30)) for i in range(2)]
    for stream in streams:
        next(stream)
    forwards, delivered, steps = forwards_of(engine), engine.delivered, []
    with ThreadPoolExecutor(3) as pool:

        def another_comes(riders, failures):
            """After the prompt's forward, before the leader has the model."""
            steps.append(pool.submit(next, late))
            wait_until(lambda: any(row is late._row for row in engine._together._arrived))
            delivered(riders, failures)

        monkeypatch.setattr(engine, "delivered", another_comes)
        with engine._lock:
            pool.submit(engine.generate, request(7, 50, 1))
            wait_until(lambda: len(engine._lock._waiting) == 1)
            steps.append(pool.submit(lambda: [next(leader).index, next(leader).index]))
            wait_until(lambda: len(engine._lock._waiting) == 2)
        wait_until(lambda: len(steps) == 2)
        assert steps[0].result(30) == [1, 2]
        assert steps[1].result(30).index == 1
    assert forwards == [50 + 1, 2]


@pytest.mark.parametrize("options", [{"stop_when": lambda _: False}, {}])
def test_rows_whose_readers_or_signals_need_more_wait_for_a_step_of_their_own(options):
    signals = Signals() if options else Signals(hidden_state="model.layers.1")
    waits = Request(prompt(1, 30), 6, signals=signals, **options)
    _, steps, _, forwards = ride(Engine(tiny_llama(), tiny_tokenizer()), [waits], request(7, 50, 1))
    assert forwards == [50, 1]
    assert steps[0].result().index == 1


@pytest.mark.parametrize(("backend", "first"), [(ShiftBackend, 50), (PackedShiftBackend, 52)])
def test_rows_with_other_adapters_ride_where_the_backend_can(backend, first):
    model = tiny_llama()
    decoding, new = [request(1, 30, adapters=Shift(0.5)), request(3, 32, adapters=Shift(0.5))], request(7, 50, 1)

    def engine():
        made = Engine(model, tiny_tokenizer())
        made.attach(backend(model))
        return made

    expected = [engine().generate(r) for r in [*decoding, new]]
    streams, _, prompts, forwards = ride(engine(), decoding, new)
    assert forwards[0] == first
    assert sum(forwards) == 52
    for stream in streams:
        list(stream)
    alike([*(stream.generation() for stream in streams), prompts.result()], expected)


def test_a_row_whose_adapter_is_gone_fails_alone(monkeypatch):
    engine = Engine(tiny_llama(), tiny_tokenizer())
    lost = Shift(12.0)
    engine.attach(Fragile(engine.model))
    original = Engine.riders

    def riders(self, rows):
        if len(rows[0].prompt_ids) == 50:
            lost.value = 13.0  # which `Fragile` has not
        return original(self, rows)

    monkeypatch.setattr(Engine, "riders", riders)
    decoding = [request(1, 30, adapters=lost), request(3, 32)]
    _, steps, prompts, _ = ride(engine, decoding, request(7, 50, 1))
    assert isinstance(steps[0].exception(), AdapterError)
    assert steps[1].result().index == 1
    assert len(prompts.result().token_ids) == 1


def test_what_goes_wrong_with_a_rider_is_raised_in_its_own_thread(monkeypatch):
    engine, original = Engine(tiny_llama(), tiny_tokenizer()), Row.absorb

    def absorb(self, *given):
        if len(self.prompt_ids) == 31 and self.generated:
            raise ArithmeticError("this one")
        original(self, *given)

    monkeypatch.setattr(Row, "absorb", absorb)
    _, steps, prompts, _ = ride(engine, [request(0, 30), request(1, 31)], request(7, 50, 1))
    assert steps[0].result().index == 1
    with pytest.raises(ArithmeticError, match="this one"):
        steps[1].result()
    assert len(prompts.result().token_ids) == 1


def test_many_threads_that_begin_and_decode_get_what_each_gets_alone(monkeypatch):
    model = tiny_llama()
    requests = [request(i, 20 + 5 * (i % 7), 4 + i % 9) for i in range(40)]
    expected = [Engine(model, tiny_tokenizer()).generate(r) for r in requests]
    engine, rode, original = Engine(model, tiny_tokenizer(), max_batch=8), [], Engine.riders

    def riders(self, rows):
        rode.append(len(found := original(self, rows)))
        return found

    monkeypatch.setattr(Engine, "riders", riders)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(engine.generate, requests))
    alike(found, expected)
    assert sum(rode) > 0
    assert not engine._together._arrived
