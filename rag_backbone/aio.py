"""Runs blocking work for an event loop in a dedicated thread.

asyncio's shared thread pool is not suitable: it is small (six threads on two cores), a generation occupies a thread
until it ends, and sequences can be batched only if all of them can ask for a token at the same time. A generation that
keeps its thread also lets the engine tell which sequences it may wait for.

Each thread belongs to an executor that the interpreter waits for at exit, because killing a thread inside torch would
crash the process.
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
    """Call a function in a new thread and wait for the result.

    On a CPU, each thread that computes with PyTorch has a team of OpenMP workers for as long as it lives. With more
    than one team, GNU's OpenMP puts all workers to sleep between operations, which then take up to twice as long. So
    computations outside the model thread run in a thread that ends.
    """
    with ThreadPoolExecutor(1, "dynprag") as executor:
        return executor.submit(contextvars.copy_context().run, function, *args).result()


async def in_own_thread(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call a function in a new thread, in the current context, and wait for the result.

    The thread cannot be interrupted; a caller that is cancelled does not wait for it.
    """
    executor = ThreadPoolExecutor(1, "dynprag")
    context = contextvars.copy_context()
    try:
        return await _run(executor, lambda: context.run(function, *args, **kwargs))
    finally:
        executor.shutdown(wait=False)


async def iterate_in_own_thread(made: Callable[[], Iterator[_T]]) -> AsyncIterator[_T]:
    """Iterate in one dedicated thread, which computes each step when it is requested.

    Leaving early closes the iterator once the step in progress has ended.
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
        except StopIteration as error:  # a future cannot hold StopIteration
            raise RuntimeError("the function raised StopIteration") from error

    return await asyncio.get_running_loop().run_in_executor(executor, work)
