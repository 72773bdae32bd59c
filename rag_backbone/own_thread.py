"""Blocking work for an event loop, in a thread of its own.

Not in asyncio's shared threads: there are few of them (two cores have six), a generation holds one for as long as it
takes, and rows share a step only if all of them can ask for it at once. A generation that keeps its thread also lets
the engine tell whose next step it may wait for.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


async def in_own_thread(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call a function in a new thread, in this context, and wait for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        _settle(loop, future, lambda: context.run(function, *args, **kwargs))

    threading.Thread(target=work, name="dynprag", daemon=True).start()
    # Shielded: the thread cannot be interrupted, and whoever is cancelled does not wait for it.
    return await asyncio.shield(future)


async def iterate_in_own_thread(made: Callable[[], Iterator[_T]]) -> AsyncIterator[_T]:
    """An iterator whose every step is computed in one thread, when it is asked for.

    Leaving early closes the iterator, once the step in progress has ended.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    asked: SimpleQueue[asyncio.Future[_T] | None] = SimpleQueue()
    left: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        iterator: Iterator[_T] | None = None
        while (future := asked.get()) is not None:
            if iterator is None:
                iterator = _settled_start(loop, future, lambda: context.run(made))
            if iterator is not None:
                _settle(loop, future, lambda it=iterator: context.run(next, it, _END))  # type: ignore[misc]
        close = getattr(iterator, "close", None)
        _settle(loop, left, lambda: None if close is None else context.run(close))

    threading.Thread(target=work, name="dynprag", daemon=True).start()
    try:
        while True:
            future: asyncio.Future[_T] = loop.create_future()
            asked.put(future)
            if (item := await asyncio.shield(future)) is _END:
                return
            yield item
    finally:
        asked.put(None)
        await left


def _settled_start(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], made: Callable[[], Iterator[_T]]
) -> Iterator[_T] | None:
    """The iterator; None if making it failed, which the future then tells."""
    try:
        return made()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
        _tell(loop, future, None, error)
        return None


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
        _tell(loop, future, None, error)
    else:
        _tell(loop, future, result, None)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    def tell() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # which a future cannot hold
            future.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop was closed meanwhile; nobody waits any more
        return
