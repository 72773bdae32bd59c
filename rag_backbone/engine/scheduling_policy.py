"""The scheduling policy: which request the model thread serves next (see `scheduler`)."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from weakref import WeakSet

if TYPE_CHECKING:
    from rag_backbone.engine.sequence import SequenceState

_PATIENCE = 0.02
"""Seconds that a decoding step waits for sequences of the last one, whose callers only have to look at a token.

One that was waited for in vain is not waited for again until it has shared a step."""
_IDLE = 0.5
"""Seconds after its last token from which a sequence counts as one that is not read at the moment."""
_LOOK = 0.02
"""Seconds after which it is looked again whether there is room for another sequence."""

Failures: TypeAlias = "dict[SequenceState, BaseException]"
"""What went wrong with single sequences."""


class ForwardSteps(Protocol):
    """What is done with sequences. Each raises what concerns all of them."""

    def read(self, first: SequenceState, others: Sequence[SequenceState]) -> tuple[Sequence[SequenceState], Failures]:
        """Read a part of the first one's prompt, and the prompts of those of the others that fit in.

        Returns:
            The rows whose prompts are read to the end, so that they have a token; and what went wrong with some.
        """
        ...

    def decode(self, rows: Sequence[SequenceState]) -> Failures:
        """One token for each."""
        ...

    def leave(self, row: SequenceState) -> None:
        """Keep what a sequence that has ended computed."""
        ...


class PendingCall:
    """What a caller waits for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Wake the caller."""
        self.error = error
        self.done.set()


class TokenRequest(PendingCall):
    """A sequence's next token."""

    def __init__(self, row: SequenceState) -> None:
        super().__init__()
        self.row = row
        self.thread = threading.current_thread()


class Task(PendingCall):
    """Something else."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call
        self.result: Any = None


class Cancelled:
    """A wish whose caller was interrupted."""

    def __init__(self, wish: PendingCall) -> None:
        self.wish = wish


class Finished:
    """A sequence that has ended."""

    def __init__(self, row: SequenceState) -> None:
        self.row = row


class SchedulingPolicy:
    """What is wished for, and what comes next.

    Args:
        steps: What is done with sequences.
        most: Sequences that are under way at once.
        inbox: Where wishes come from, and the other messages; None ends the work.
    """

    def __init__(self, steps: ForwardSteps, most: int, inbox: queue.SimpleQueue[Any]) -> None:
        self._steps = steps
        self._most = most
        self._inbox = inbox
        self._asks: list[TokenRequest] = []
        self._works: deque[Task] = deque()
        self._under_way: WeakSet[SequenceState] = WeakSet()
        """Rows that have begun and not ended."""
        self._expected: WeakSet[SequenceState] = WeakSet()
        """Rows of the last steps that have not asked again."""
        self._over = False

    def work(self, message: Any) -> bool:
        """Take a message, and go on until nothing is left to do; gives whether that is the end."""
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
                self._note_next(_LOOK)  # they wait for room
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
            self._steps.leave(message.row)
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
        """Wait for a message; whether one came."""
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
        """Give everyone who waits this error: the thread has ended, or this very class is at fault."""
        self._finish(list(self._asks), {ask.row: error for ask in self._asks})
        for work in self._works:
            work.finish(error)
        self._works.clear()

    # ---------------------------------------------------------------------------------------------------------- turns

    def _work(self) -> None:
        if not self._works:
            return
        work = self._works.popleft()
        try:
            work.result = work.call()
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            work.finish(error)
        else:
            work.finish()

    def _read(self) -> bool:
        fresh = self._admitted()
        if not fresh:
            return False
        rows = [ask.row for ask in fresh]
        try:
            read, failures = self._steps.read(rows[0], rows[1:])
        except Exception as error:  # noqa: BLE001 - the caller gets it
            read, failures = rows[:1], {rows[0]: error}
        self._deliver([ask for ask in fresh if ask.row in read], failures)
        return True

    def _admitted(self) -> list[TokenRequest]:
        """Those whose prompts are still to be read, first come, first served."""
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
        """A sequence that is not read at the moment keeps no other out, nor does one that the same thread reads."""
        since = time.monotonic() - _IDLE
        asking = {one.row for one in self._asks}
        busy = (
            row
            for row in self._under_way
            if row.finish_reason is None and row.thread is not ask.thread and (row in asking or row.left_at > since)
        )
        return sum(1 for _ in busy) >= self._most

    def _decode(self) -> bool:
        self._note_all()  # while prompts were read, callers have taken their tokens
        if not self._decoding():
            return False
        self._wait_for_expected()
        asks = self._decoding()[: self._most]
        rows = [ask.row for ask in asks]
        if not rows:
            return True
        try:
            failures = self._steps.decode(rows)
        except Exception as error:  # noqa: BLE001 - the callers get it
            failures = dict.fromkeys(rows, error)
        for ask in asks:
            ask.row.thread = ask.thread
            ask.row.awaited_in_vain &= len(rows) == 1
        self._deliver(asks, failures)
        return True

    def _decoding(self) -> list[TokenRequest]:
        return [ask for ask in self._asks if ask.row.decodes]

    def _deliver(self, asks: Sequence[TokenRequest], failures: Failures) -> None:
        for ask in asks:
            if not ask.row.awaited_in_vain and ask.row not in failures:
                self._expected.add(ask.row)
        self._finish(asks, failures)

    def _wait_for_expected(self) -> None:
        """Wait a moment for those that have just got a token, so that one forward serves all."""
        end = time.monotonic() + _PATIENCE
        while self._awaited() and not self._works and len(self._decoding()) < self._most:
            left = end - time.monotonic()
            if left <= 0 or not self._note_next(left):
                for row in self._expected:
                    row.awaited_in_vain = True
                self._expected.clear()

    def _awaited(self) -> bool:
        """Whether an expected row may come: what a thread reads that waits for another row cannot."""
        waiting = {ask.thread for ask in self._asks}
        return any(row.thread not in waiting and row.finish_reason is None for row in self._expected)
