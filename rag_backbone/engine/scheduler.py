"""The scheduler: the one thread that calls a model, and the queue of requests that it serves.

A caller puts a request into the queue and waits for the result: the next token of a sequence, or another computation
with the model. In each cycle the thread does one of each of the following, so that none starves the others:

- a *task*, which is any other computation, in order of arrival;
- a *prefill* chunk: a bounded number of tokens, of one long prompt or of several short ones;
- a *decode* step: one token for every sequence whose caller is waiting for one, in one forward pass.

Generation is pull-based: no token is computed before a caller asks for it, and a stream may be dropped at any token.
Only the model thread touches the scheduling state. Callers, and the garbage collector when it finalises a stream, reach
it through the queue.

A single thread also means a single OpenMP thread pool; several pools slow each other down on a CPU.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from rag_backbone.engine.scheduling_policy import (
    Cancelled,
    Finished,
    PendingCall,
    SchedulingPolicy,
    Task,
    TokenRequest,
)
from rag_backbone.engine.worker import Worker
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from rag_backbone.engine.sequence import SequenceState

_T = TypeVar("_T")
_CLOSED = "the engine was closed; load the model again"


class _Shared:
    """State that the model thread and the threads that start it both modify while the lock is held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        """The running model thread; None if there is none."""
        self.process: int | None = None
        """Id of the process that started the first model thread."""
        self.closed = False


class Scheduler:
    """Starts the model thread and puts requests into its queue.

    Args:
        worker: Runs the prefill and decode steps.
        most: Maximum number of sequences in progress at once; the others wait before their first forward pass, while
            they hold no memory.
    """

    def __init__(self, worker: Worker, most: int) -> None:
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._turns = SchedulingPolicy(worker, most, self._inbox)
        self._shared = _Shared()
        weakref.finalize(self, self._inbox.put, None)

    def advance(self, rows: Sequence[SequenceState]) -> None:
        """Wait for the next token of each sequence, and apply it to the sequence.

        Raises the first error if any sequence failed. If the caller is interrupted, the interrupt is raised only after
        no running forward pass includes these sequences.
        """
        missing = [row for row in rows if row.chosen is None]
        asks = [TokenRequest(row) for row in missing]
        interrupt = self._wished(asks)
        errors = [ask.error for ask in asks if ask.error is not None]
        for row in rows if interrupt is None else ():
            try:
                row.take()
            except Exception as error:  # noqa: BLE001 - from `stop_when`; the other sequences have their tokens
                errors.append(error)
        for reason in (interrupt, *errors):
            if reason is not None:
                raise reason

    def run(self, call: Callable[[], _T]) -> _T:
        """Call a function in the model thread and return its result."""
        if threading.current_thread() is self._shared.thread:
            return call()
        work = Task(call)
        error = self._wished([work]) or work.error
        if error is not None:
            raise error
        return cast("_T", work.result)

    def leave(self, row: SequenceState) -> None:
        """Report that a sequence has ended. Never blocks: the garbage collector may call this anywhere."""
        self._inbox.put(Finished(row))

    def close(self) -> None:
        """End the model thread once all pending requests are done; later requests are refused."""
        with self._shared.lock:
            self._shared.closed = True
        self._inbox.put(None)

    def _wished(self, wishes: Sequence[PendingCall]) -> BaseException | None:
        """Submit requests and wait until all are done.

        Return the exception that interrupted the wait, or None. In either case none of the requests is in progress any
        more.
        """
        if not wishes:
            return None
        if threading.current_thread() is self._shared.thread:
            raise RuntimeError("a callback in the model thread cannot wait for the engine: it would wait for itself")
        self._refuse()
        for wish in wishes:
            self._inbox.put(wish)
        interrupt: BaseException | None = None
        try:
            self._start()
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            if self._shared.thread is None:  # nothing can be in progress
                return error
            interrupt = error
        for wish in wishes:
            while not wish.done.is_set():
                try:
                    if interrupt is not None:
                        self._inbox.put(Cancelled(wish))
                    wish.done.wait()
                except BaseException as error:  # noqa: BLE001 - raised by the caller
                    interrupt = error
        return interrupt

    def _refuse(self) -> None:
        if self._shared.closed:
            raise ConfigurationError(_CLOSED)
        if self._shared.process not in (None, os.getpid()):
            raise ConfigurationError(
                "this process was forked from one that had used the model, and PyTorch's threads do not survive that. "
                "Load the model in this process, or start the process with multiprocessing's 'spawn'."
            )

    def _start(self) -> None:
        shared = self._shared
        with shared.lock:
            if shared.thread is not None:
                return
            self._refuse()
            arguments = (self._inbox, weakref.ref(self._turns), shared)
            thread = threading.Thread(target=_main, args=arguments, name="dynprag-model", daemon=True)
            shared.thread, shared.process = thread, os.getpid()
            started = False
            try:
                started = _running.start(thread, self._inbox)
            finally:
                if not started:
                    shared.thread = None
        if not started:
            if threading.current_thread().daemon:  # it is about to be killed, so no caller would see an error
                threading.Event().wait()
            raise ConfigurationError("the process is shutting down; the model can no longer be called")


class _Running:
    """The model threads of all engines. Killing a thread inside torch at interpreter exit would crash the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inboxes: weakref.WeakKeyDictionary[threading.Thread, queue.SimpleQueue[Any]] = weakref.WeakKeyDictionary()
        self._ended = False

    def start(self, thread: threading.Thread, inbox: queue.SimpleQueue[Any]) -> bool:
        """Start a thread unless the process is shutting down; return whether it was started."""
        with self._lock:
            if not self._ended:
                self._inboxes[thread] = inbox
                thread.start()
            return not self._ended

    def end(self) -> None:
        """Let all threads finish their pending requests, and join them."""
        with self._lock:
            self._ended = True
            threads = list(self._inboxes.items())
        for thread, inbox in threads:
            inbox.put(None)
            thread.join()


_running = _Running()
atexit.register(_running.end)


def _main(inbox: queue.SimpleQueue[Any], turns: weakref.ref[SchedulingPolicy], shared: _Shared) -> None:
    """Run the model thread. While it waits, it holds no reference to the model."""
    try:
        while True:
            message = inbox.get()
            taken = turns()
            if message is None or taken is None:
                return
            with torch.inference_mode():
                if taken.work(message):
                    return
            del message, taken
    finally:
        with shared.lock:
            shared.thread = None
        if shared.closed:
            _refuse_all(inbox, turns())


def _refuse_all(inbox: queue.SimpleQueue[Any], turns: SchedulingPolicy | None) -> None:
    """Fail every request that is still waiting for a closed engine."""
    if turns is not None:
        turns.fail(ConfigurationError(_CLOSED))
    with contextlib.suppress(queue.Empty):
        while True:
            if isinstance(message := inbox.get_nowait(), PendingCall):
                message.finish(ConfigurationError(_CLOSED))
