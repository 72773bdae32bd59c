"""The model thread: results, errors and interrupts reach the right caller, and no thread is left behind."""

import contextvars
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rag_backbone.engine import scheduler as module
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError
from tests.rag_backbone.busy import held, wait_until
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


def request(i: int, tokens: int = 12, **options) -> Request:
    return Request([5 + i, 6, 7 + i], tokens, **options)


def test_all_work_runs_in_one_thread_in_inference_mode(engine):
    def call():
        return threading.current_thread(), torch.is_inference_mode_enabled()

    run = engine._scheduler.run
    found = [run(call)]
    with ThreadPoolExecutor(3) as pool:
        found += [pool.submit(run, call).result(10) for _ in range(3)]
    assert len(set(found)) == 1
    assert found[0][0] is not threading.current_thread()
    assert found[0][1]
    assert run(lambda: run(threading.current_thread)) is found[0][0]  # called in the thread itself


def test_an_error_is_raised_in_the_caller_and_the_thread_continues(engine):
    def fail():
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            engine._scheduler.run(fail)
    assert engine._scheduler.run(lambda: 5) == 5


class Interrupt(BaseException):
    """Ctrl-C in one thread."""


class Interrupted(threading.Event):
    """An event whose first wait is interrupted."""

    first = True

    def wait(self, timeout=None):
        if self.first:
            self.first = False
            raise Interrupt
        return super().wait(timeout)


def test_an_interrupt_waits_for_the_work_in_progress(engine, monkeypatch):
    done = []

    def call():
        time.sleep(0.2)
        done.append(1)

    engine._scheduler.run(lambda: None)
    work = module.Task(call)
    work.done = Interrupted()
    monkeypatch.setattr(module, "Task", lambda _: work)
    begun = []
    work.call = lambda: (begun.append(1), call())
    with pytest.raises(Interrupt):
        engine._scheduler.run(call)
    assert len(done) == len(begun)  # either never started, or finished


def test_an_interrupted_caller_withdraws_its_request(engine, monkeypatch):
    expected = Engine(tiny_llama(), tiny_tokenizer()).generate(request(1)).token_ids
    stream = engine.stream(request(1))
    next(stream)
    original, made = module.TokenRequest, []

    def ask(row):
        made.append(original(row))
        if len(made) == 1:
            made[0].done = Interrupted()
        return made[-1]

    monkeypatch.setattr(module, "TokenRequest", ask)
    with ThreadPoolExecutor(1) as pool:
        with held(engine) as inbox:
            reading = pool.submit(next, stream)
            wait_until(lambda: inbox.qsize() == 2)  # the request and its cancellation
        assert isinstance(reading.exception(10), Interrupt)
    assert [step.token_id for step in stream] == expected[1:]  # nothing is lost


def test_the_thread_ends_with_its_engine_and_holds_no_reference_to_the_model_while_idle():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    engine.generate(request(1))
    engine._scheduler.run(lambda: None)
    thread, model = engine._scheduler._shared.thread, weakref.ref(engine.model)
    del engine
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert model() is None


def test_a_closed_engine_finishes_pending_requests_and_refuses_new_ones(engine):
    with ThreadPoolExecutor(1) as pool:
        with held(engine) as inbox:
            asked = pool.submit(next, engine.stream(request(1)))
            wait_until(lambda: inbox.qsize() == 1)
            engine.close()
        assert asked.result(10).index == 0
    for call in (lambda: engine.generate(request(2)), lambda: engine.score([1], [2]), lambda: engine.shares_steps):
        with pytest.raises(ConfigurationError, match="was closed; load the model again"):
            call()


def test_closing_an_engine_answers_all_of_its_concurrent_callers(engine):
    def ask(i):
        try:
            return engine.generate(request(i, 40)).token_ids
        except ConfigurationError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(ask, i) for i in range(32)]
        next(iter(futures)).result(30)
        engine.close()
        assert all(future.result(30) for future in futures)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_after_the_model_was_used_is_refused_with_the_reason(engine):
    engine.generate(request(1))
    context = multiprocessing.get_context("fork")
    told = context.Queue()

    def child():
        try:
            engine.generate(request(2))
        except ConfigurationError as error:
            told.put(str(error))

    process = context.Process(target=child)
    process.start()
    assert "was forked from one that had used the model" in told.get(timeout=30)
    process.join(10)
    assert engine.generate(request(3)).token_ids  # the parent process continues


def test_a_custom_computation_has_exclusive_use_of_the_model_and_the_callers_settings(engine):
    expected = {i: Engine(tiny_llama(), tiny_tokenizer()).generate(request(i)).token_ids for i in range(4)}
    inside, marked = [], contextvars.ContextVar("marked", default=0)

    def compute(number):
        assert threading.current_thread().name == "dynprag-model"
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (number % 2 == 0, number % 3 == 0)
        inside.append(number)
        assert len(inside) == 1
        time.sleep(0.002)
        inside.pop()
        return marked.get()

    def ask(number):
        marked.set(number)
        with torch.inference_mode(number % 3 == 0), torch.set_grad_enabled(number % 2 == 0):
            return engine.run(compute, number=number)

    with ThreadPoolExecutor(8) as pool:
        own = [pool.submit(ask, i) for i in range(20)]
        found = [(i % 4, pool.submit(engine.generate, request(i % 4))) for i in range(20)]
        assert all(future.result(60).token_ids == expected[i] for i, future in found)
        assert [future.result(60) for future in own] == list(range(20))


def test_gradients_can_be_computed_in_the_model_thread(engine):
    weight = engine.model.model.layers[0].self_attn.q_proj.weight

    def backward():
        engine.model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()

    engine.run(backward)
    found, weight.grad = weight.grad, None
    backward()
    assert torch.allclose(found, weight.grad)
    assert weight.grad.abs().sum() > 0


def test_an_error_in_a_custom_computation_is_raised_in_the_caller(engine):
    def fail():
        raise ValueError("mine")

    for _ in range(3):
        with pytest.raises(ValueError, match="mine"):
            engine.run(fail)
    assert engine.generate(request(1)).token_ids


def test_a_callback_may_use_the_engine_and_a_failing_one_affects_only_its_own_generation(engine):
    asked = []

    def stop_when(step):
        asked.append(engine.generate(request(7, 2)).token_ids)
        return step.index == 1

    def fail(step):
        raise LookupError("not this one")

    expected = Engine(tiny_llama(), tiny_tokenizer()).generate(request(2)).token_ids
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(engine.generate, request(i, stop_when=s)) for i, s in enumerate([stop_when, fail, None])]
        assert len(found[0].result(30).steps) == 2
        assert isinstance(found[1].exception(30), LookupError)
        assert found[2].result(30).token_ids == expected
    assert len(asked) == 2


def test_the_engine_survives_a_batch_in_which_a_callback_raises(engine):
    def fail(step):
        raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        engine.generate_batch([request(1), request(2, stop_when=fail), request(3)])
    assert engine.generate(request(1)).token_ids


def test_a_thousand_prompts_are_served_and_no_state_is_left_over(engine):
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda i: engine.generate(request(i % 300, 1)).token_ids, range(1000)))
    assert len(found) == 1000
    engine._scheduler.run(lambda: None)
    turns = engine._scheduler._turns
    assert (turns._asks, list(turns._works), len(turns._under_way)) == ([], [], 0)


def test_a_process_that_exits_while_a_thread_generates_exits_cleanly():
    script = """
import atexit
atexit.register(lambda: ask_late())  # comes last
import threading, time
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from rag_backbone.engine.requests import Request
from tests.tiny import tiny_llama, tiny_tokenizer
engine = Engine(tiny_llama(), tiny_tokenizer())
def work():
    while True:
        engine.generate(Request([5, 6, 7], 200))
def ask_late():
    try:
        engine.generate(Request([5, 6, 7], 2))
    except ConfigurationError as error:
        print(error)
threading.Thread(target=work, daemon=True).start()
time.sleep(1)
print("end")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "end",
        "the process is shutting down; the model can no longer be called",
    ]
    assert not done.stderr
