"""An engine that is busy, so that what is asked meanwhile comes together; and what it does then."""

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
    """The model's thread does something else; the inbox's length tells how much has been asked for meanwhile."""
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
    """Make calls in threads of their own that all come, in this order, while the engine is busy; their futures."""
    assert engine.shares_steps  # what the model supports is found out before
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
    """The tokens of every forward from now on."""
    assert not tried_out or engine.shares_steps
    found, original = [], engine.model.forward

    def forward(*args, **arguments):
        found.append(arguments["input_ids"].numel())
        return original(*args, **arguments)

    engine.model.forward = forward
    return found
