"""Blocking work next to an event loop: order, context, errors, leaving early, and concurrency."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time

import pytest

from rag_backbone.aio import in_own_thread, iterate_in_own_thread

NAME = contextvars.ContextVar("name", default="none")


async def test_a_call_runs_in_another_thread_and_in_the_callers_context():
    NAME.set("mine")
    found = await in_own_thread(lambda a, b: (NAME.get(), a + b, threading.get_ident()), 1, b=2)
    assert found[:2] == ("mine", 3)
    assert found[2] != threading.get_ident()


async def test_many_calls_can_block_at_the_same_time():
    """All calls must have started before any continues; with a pool of fewer threads this would deadlock."""
    barrier = threading.Barrier(40)
    await asyncio.wait_for(asyncio.gather(*(in_own_thread(barrier.wait) for _ in range(40))), 30)


async def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_own_thread(next, iter(()))


async def test_an_iterator_runs_in_one_thread_step_by_step():
    computed, threads = [], set()

    def numbers():
        for i in range(5):
            computed.append(i)
            threads.add(threading.get_ident())
            yield i

    got = []
    async for i in iterate_in_own_thread(numbers):
        got.append(i)
        assert computed == got  # nothing is computed ahead
    assert got == [0, 1, 2, 3, 4]
    assert len(threads) == 1


async def test_errors_of_an_iterator_and_of_its_creation_reach_the_caller():
    def broken():
        yield 1
        raise ValueError("broken")

    got = []
    with pytest.raises(ValueError, match="broken"):
        async for i in iterate_in_own_thread(broken):
            got.append(i)
    assert got == [1]

    def unmade():
        raise KeyError("unmade")

    with pytest.raises(KeyError):
        async for _ in iterate_in_own_thread(unmade):
            pass


async def test_leaving_early_closes_the_iterator():
    closed = threading.Event()

    def numbers():
        try:
            yield from range(100)
        finally:
            closed.set()

    steps = iterate_in_own_thread(numbers)
    assert await anext(steps) == 0
    await steps.aclose()
    assert closed.is_set()


async def test_an_iterator_cancelled_during_a_step_is_closed_after_that_step():
    begun, closed = threading.Event(), threading.Event()

    def slow():
        try:
            begun.set()
            time.sleep(0.3)
            yield 1
        finally:
            closed.set()

    async def read():
        async for _ in iterate_in_own_thread(slow):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


@pytest.mark.parametrize("work", ["in_own_thread(busy)", "anext(iterate_in_own_thread(lambda: iter(busy, None)))"])
def test_a_process_that_exits_during_the_work_exits_cleanly(work):
    """A thread that is inside torch when the interpreter exits must not crash the process."""
    script = f"""
import asyncio, time, torch
from rag_backbone.aio import in_own_thread, iterate_in_own_thread

def busy():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        torch.randn(200, 200) @ torch.randn(200, 200)
    print("to the end")

asyncio.run(asyncio.wait_for({work}, 0.1))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.strip().endswith("TimeoutError")
    assert ended.stdout == "to the end\n"


async def test_an_abandoned_iterator_leaves_no_thread():
    steps = iterate_in_own_thread(lambda: iter(range(3)))
    assert await anext(steps) == 0
    del steps
    gc.collect()
    end = time.monotonic() + 10
    while any(thread.name.startswith("dynprag_") for thread in threading.enumerate()):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
