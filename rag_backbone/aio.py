"""Blocking work for an event loop, in a thread of its own.

Not in asyncio's shared threads: there are few of them (two cores have six), a generation holds one for as long as it
takes, and rows share a step only if all of them can ask for it at once. A generation that keeps its thread also lets
the engine tell whose next step it may wait for.

Each has an executor of one thread, which the interpreter waits for when it ends: a thread that were killed inside of
torch would take the process down with it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


def in_thread_that_ends(function: Callable[..., _T], *args: Any) -> _T:
    """Call a function in a new thread, and wait for it.

    Each thread that computes with PyTorch on a CPU has a team of OpenMP workers for as long as it lives, and with more
    than one team GNU's OpenMP lets all of them sleep between operations, which then take up to twice as long. So what
    computes beside the model's own thread does it in one that ends.
    """
    with ThreadPoolExecutor(1, "dynprag") as executor:
        return executor.submit(contextvars.copy_context().run, function, *args).result()


async def in_own_thread(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call a function in a new thread, in this context, and wait for it.

    The thread cannot be interrupted; whoever is cancelled does not wait for it.
    """
    executor = ThreadPoolExecutor(1, "dynprag")
    context = contextvars.copy_context()
    try:
        return await _run(executor, lambda: context.run(function, *args, **kwargs))
    finally:
        executor.shutdown(wait=False)


async def iterate_in_own_thread(made: Callable[[], Iterator[_T]]) -> AsyncIterator[_T]:
    """An iterator whose every step is computed in one thread, when it is asked for.

    Leaving early closes the iterator, once the step in progress has ended.
    """
    executor = ThreadPoolExecutor(1, "dynprag")
    context = contextvars.copy_context()
    iterator: Iterator[_T] | None = None

    def step() -> _T:
        nonlocal iterator
        if iterator is None:
            iterator = made()
        return next(iterator, _END)

    def close() -> None:
        if (end := getattr(iterator, "close", None)) is not None:
            end()

    try:
        while (item := await _run(executor, lambda: context.run(step))) is not _END:
            yield item
    finally:
        closing = executor.submit(context.run, close)
        executor.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))


async def _run(executor: ThreadPoolExecutor, function: Callable[[], _T]) -> _T:
    def work() -> _T:
        try:
            return function()
        except StopIteration as error:  # which a future cannot hold
            raise RuntimeError("the function raised StopIteration") from error

    return await asyncio.get_running_loop().run_in_executor(executor, work)
