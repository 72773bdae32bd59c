"""The scheduling policy: which request the model thread serves next (see `scheduler`)."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from rag_backbone.engine.worker import Failures, Worker

if TYPE_CHECKING:
    from rag_backbone.engine.sequence import SequenceState

_PATIENCE = 0.02
"""Seconds that a decode step waits for sequences of the previous step, whose callers usually only look at the token.

After a timeout, a sequence is not waited for again until it has joined a batch.
"""
_IDLE = 0.5
"""Seconds after its last token at which a sequence counts as idle: its stream is not being read."""
_LOOK = 0.02
"""Seconds between checks for whether another sequence can be admitted."""


class PendingCall:
    """A request that a caller is waiting for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Wake the caller."""
        self.error = error
        self.done.set()


class TokenRequest(PendingCall):
    """A request for the next token of a sequence."""

    def __init__(self, row: SequenceState) -> None:
        super().__init__()
        self.row = row
        self.thread = threading.current_thread()


class Task(PendingCall):
    """A request to call a function in the model thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call
        self.result: Any = None


class Cancelled:
    """Message: the caller of a request was interrupted."""

    def __init__(self, wish: PendingCall) -> None:
        self.wish = wish


class Finished:
    """Message: a sequence has ended."""

    def __init__(self, row: SequenceState) -> None:
        self.row = row


class SchedulingPolicy:
    """Holds the pending requests and decides what runs next.

    Args:
        worker: Runs the prefill and decode steps.
        most: Maximum number of sequences in progress at once.
        inbox: The queue of requests and other messages; None ends the work.
    """

    def __init__(self, worker: Worker, most: int, inbox: queue.SimpleQueue[Any]) -> None:
        self._worker = worker
        self._most = most
        self._inbox = inbox
        self._asks: list[TokenRequest] = []
        self._works: deque[Task] = deque()
        self._under_way: WeakSet[SequenceState] = WeakSet()
        """Sequences that have started and not finished."""
        self._expected: WeakSet[SequenceState] = WeakSet()
        """Sequences of the latest steps whose callers have not asked again."""
        self._over = False

    def work(self, message: Any) -> bool:
        """Handle a message and work until nothing is left to do; return whether the thread should end."""
        try:
            self._note(message)
            while True:
                self._note_all()
                self._work()
                moved = self._read()
                moved = self._decode() or moved
                if moved or self._works or self._decoding() or self._admitted() or not self._inbox.empty():
                    continue
                if not self._asks or self._over:
                    return self._over
                self._note_next(_LOOK)  # the remaining requests wait for room
        except BaseException as error:
            self.fail(error)
            raise

    # ------------------------------------------------------------------------------------------------------- messages

    def _note(self, message: Any) -> None:
        if isinstance(message, TokenRequest):
            self._expected.discard(message.row)
            if message.row.finish_reason is None:
                self._asks.append(message)
            else:
                message.finish()
        elif isinstance(message, Task):
            self._works.append(message)
        elif isinstance(message, Finished):
            self._finish([ask for ask in self._asks if ask.row is message.row])
            self._under_way.discard(message.row)
            self._expected.discard(message.row)
            self._worker.leave(message.row)
        elif isinstance(message, Cancelled):
            wish = message.wish
            if wish in self._asks or wish in self._works:
                self._asks = [ask for ask in self._asks if ask is not wish]
                self._works = deque(work for work in self._works if work is not wish)
                wish.finish()
        elif message is None:
            self._over = True

    def _note_all(self) -> None:
        while True:
            try:
                self._note(self._inbox.get_nowait())
            except queue.Empty:
                return

    def _note_next(self, seconds: float) -> bool:
        """Wait up to `seconds` for a message and handle it; return whether one arrived."""
        try:
            self._note(self._inbox.get(timeout=seconds))
        except queue.Empty:
            return False
        return True

    def _finish(self, asks: Sequence[TokenRequest], failures: Failures | None = None) -> None:
        self._asks = [ask for ask in self._asks if ask not in asks]
        now = time.monotonic()
        for ask in asks:
            ask.row.left_at = now
            ask.finish((failures or {}).get(ask.row))

    def fail(self, error: BaseException) -> None:
        """Fail all pending requests with this error: the thread has ended, or this class has a bug."""
        self._finish(list(self._asks), {ask.row: error for ask in self._asks})
        for work in self._works:
            work.finish(error)
        self._works.clear()

    # ---------------------------------------------------------------------------------------------------------- steps

    def _work(self) -> None:
        if not self._works:
            return
        work = self._works.popleft()
        try:
            work.result = work.call()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            work.finish(error)
        else:
            work.finish()

    def _read(self) -> bool:
        fresh = self._admitted()
        if not fresh:
            return False
        rows = [ask.row for ask in fresh]
        try:
            read, failures = self._worker.read(rows[0], rows[1:])
        except Exception as error:  # noqa: BLE001 - raised in the caller
            read, failures = rows[:1], {rows[0]: error}
        self._deliver([ask for ask in fresh if ask.row in read], failures)
        return True

    def _admitted(self) -> list[TokenRequest]:
        """Return the requests of sequences that are to be prefilled, in order of arrival."""
        found, full = [], False
        for ask in self._asks:
            row = ask.row
            if row.decodes:
                continue
            if row not in self._under_way:
                full = full or self._is_full(ask)
                if full:
                    continue
                self._under_way.add(row)
            row.thread = ask.thread
            found.append(ask)
        return found

    def _is_full(self, ask: TokenRequest) -> bool:
        """Return whether no other sequence may start for this request.

        Idle sequences and those read by the same thread do not count, so they never block others.
        """
        since = time.monotonic() - _IDLE
        asking = {one.row for one in self._asks}
        busy = (
            row
            for row in self._under_way
            if row.finish_reason is None and row.thread is not ask.thread and (row in asking or row.left_at > since)
        )
        return sum(1 for _ in busy) >= self._most

    def _decode(self) -> bool:
        self._note_all()  # callers have taken their tokens during prefill
        if not self._decoding():
            return False
        self._wait_for_expected()
        asks = self._decoding()[: self._most]
        rows = [ask.row for ask in asks]
        if not rows:
            return True
        try:
            failures = self._worker.decode(rows)
        except Exception as error:  # noqa: BLE001 - raised in the callers
            failures = dict.fromkeys(rows, error)
        for ask in asks:
            ask.row.thread = ask.thread
            ask.row.missed_batch &= len(rows) == 1
        self._deliver(asks, failures)
        return True

    def _decoding(self) -> list[TokenRequest]:
        return [ask for ask in self._asks if ask.row.decodes]

    def _deliver(self, asks: Sequence[TokenRequest], failures: Failures) -> None:
        for ask in asks:
            if not ask.row.missed_batch and ask.row not in failures:
                self._expected.add(ask.row)
        self._finish(asks, failures)

    def _wait_for_expected(self) -> None:
        """Wait briefly for sequences that have just got a token, so that one forward pass serves all."""
        end = time.monotonic() + _PATIENCE
        while self._awaited() and not self._works and len(self._decoding()) < self._most:
            left = end - time.monotonic()
            if left <= 0 or not self._note_next(left):
                for row in self._expected:
                    row.missed_batch = True
                self._expected.clear()

    def _awaited(self) -> bool:
        """Return whether an expected sequence may still ask: its thread must not be waiting for another sequence."""
        waiting = {ask.thread for ask in self._asks}
        return any(row.thread not in waiting and row.finish_reason is None for row in self._expected)
