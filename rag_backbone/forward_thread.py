"""A model's forwards on a CPU, all in one thread, whichever thread asks for them.

Each thread that computes with PyTorch gets a *team* of OpenMP workers of its own, and keeps it. GNU's OpenMP, which
PyTorch brings on Linux, lets workers wait for the next operation awake, but only while all teams together have no more
threads than there are processors. With a second team they sleep in between, and waking them costs more than most
operations of a decoding step: two threads that take turns decode at half of the speed of one, and so does one thread
if another has loaded the model.

So forwards have a thread of their own, and the others give back their teams: as they ask for a forward, and after what
they compute themselves. Elsewhere (other devices, other OpenMP libraries) a forward is made by the thread that asks.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

_T = TypeVar("_T")

_IDLE = 0.1
"""Seconds without a forward after which the thread gives back its own team."""
_SOFT = 1
"""`omp_pause_soft`: threads go, settings stay (OpenMP 5.0, section 3.2.44)."""


@functools.cache
def _gnu_openmp() -> Any:
    """PyTorch's own OpenMP, if it is GNU's and can give back teams."""
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)  # loaded already, or not at all
            library.omp_pause_resource_all.restype = ctypes.c_int
            return library
    return None


def release_team() -> None:
    """Give back this thread's OpenMP workers; the next operation that needs some starts them anew, in 0.1 ms."""
    if (library := _gnu_openmp()) is not None:
        library.omp_pause_resource_all(_SOFT)


@contextlib.contextmanager
def team_released() -> Iterator[None]:
    """Compute something in this thread, and give back its workers."""
    try:
        yield
    finally:
        release_team()


class _Task:
    __slots__ = ("call", "done", "error", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


class ForwardThread:
    """The thread of one model's forwards. It is started by the first one, and ends with this object."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = 0

    def run(self, call: Callable[[], _T]) -> _T:
        """Call it in the thread, in inference mode, and wait for it.

        A forward cannot be stopped half-way: an interrupt (Ctrl-C) is raised when it has ended.
        """
        if _gnu_openmp() is None or not self._alive():
            with torch.inference_mode():
                return call()
        release_team()
        task = _Task(call)
        self._tasks.put(task)
        failure: BaseException | None = None
        while not task.done.is_set():
            try:
                task.done.wait()
            except BaseException as interrupt:  # noqa: BLE001 - raised below
                failure = interrupt
        failure = failure or task.error
        if failure is not None:
            raise failure
        return cast("_T", task.result)

    def rest(self) -> None:
        """Let the thread give back its workers now, so that another may compute at full speed."""
        if self._thread is not None and self._thread.is_alive():
            self.run(release_team)

    def _alive(self) -> bool:
        """Whether the thread runs and this is not it; started if need be, also after a fork."""
        if self._thread is None or self._process != os.getpid() or not self._thread.is_alive():
            self._tasks = queue.SimpleQueue()
            thread = threading.Thread(target=_work, args=(self._tasks,), name="dynprag-forward", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                return False
            self._thread, self._process = thread, os.getpid()
            weakref.finalize(self, self._tasks.put, None)
            _running[thread] = self._tasks
        return threading.current_thread() is not self._thread


_running: weakref.WeakKeyDictionary[threading.Thread, queue.SimpleQueue[_Task | None]] = weakref.WeakKeyDictionary()


@atexit.register
def _end_all() -> None:
    """A thread that were killed inside of torch would take the process down with it."""
    for thread, tasks in list(_running.items()):
        tasks.put(None)
        thread.join()


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    while True:
        try:
            task = tasks.get(timeout=_IDLE)
        except queue.Empty:
            release_team()
            task = tasks.get()
        if task is None:
            return
        try:
            with torch.inference_mode():
                task.result = task.call()
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            task.error = error
        task.done.set()
        del task  # nothing of a forward is kept until the next one
