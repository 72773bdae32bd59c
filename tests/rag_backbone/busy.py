"""Helpers that keep an engine busy, so that requests queue up, and record what it does afterwards."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@contextmanager
def held(engine):
    """Keep the model thread busy; the length of the yielded inbox is the number of requests that have queued up."""
    begun, over = threading.Event(), threading.Event()

    def work():
        begun.set()
        over.wait(60)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(engine._scheduler.run, work)
        begun.wait(30)
        try:
            yield engine._scheduler._inbox
        finally:
            over.set()
            holding.result(30)


def while_busy(engine, *calls):
    """Make calls in threads, so that all queue up in this order while the engine is busy; return their futures."""
    assert engine.shares_steps  # try out the model first
    with ThreadPoolExecutor(len(calls)) as pool:
        with held(engine) as inbox:
            futures = []
            for call in calls:
                futures.append(pool.submit(call))
                wait_until(lambda: inbox.qsize() == len(futures))
        for future in futures:
            future.exception(60)
    return futures


def forwards_of(engine, *, tried_out=True):
    """Record the number of tokens in every forward pass from now on."""
    assert not tried_out or engine.shares_steps
    found, original = [], engine.model.forward

    def forward(*args, **arguments):
        found.append(arguments["input_ids"].numel())
        return original(*args, **arguments)

    engine.model.forward = forward
    return found
