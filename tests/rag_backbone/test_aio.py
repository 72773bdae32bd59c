"""Blocking work beside an event loop: order, context, errors, leaving early, and how many can be at it."""

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


async def test_many_calls_block_at_once():
    """All have to be there before any goes on: with a pool of fewer threads this would never end."""
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


async def test_errors_of_an_iterator_and_of_making_one():
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


async def test_cancelled_in_a_step_the_iterator_is_closed_when_the_step_has_ended():
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
def test_a_process_that_ends_meanwhile_ends_well(work):
    """A thread that is inside of torch when the interpreter goes must not take the process down with it."""
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


async def test_an_iterator_that_was_forgotten_leaves_no_thread():
    steps = iterate_in_own_thread(lambda: iter(range(3)))
    assert await anext(steps) == 0
    del steps
    gc.collect()
    end = time.monotonic() + 10
    while any(thread.name.startswith("dynprag_") for thread in threading.enumerate()):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
