"""Several generations in one forward: those of one caller, and those of several threads that happen to decode at once.

A step of several rows costs little more than one of a single row, because reading the weights is what a step costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

from rag_backbone.errors import AdapterError
from rag_backbone.row import Row

if TYPE_CHECKING:
    from rag_backbone.engine import Engine

# How long a step waits for rows that took part in the last one. Their threads only have to look at a token. One that
# was waited for in vain (it has gone off to retrieve, or its reader takes turns with this one) is not waited for again
# until it has shared a step.
_PATIENCE = 0.02


def decode_together(engine: Engine, rows: Sequence[Row], max_rows: int) -> None:
    """Advance all rows to their ends, at most `max_rows` at a time; a row that ends makes room for the next."""
    waiting, running = list(rows), list[Row]()
    try:
        while waiting or running:
            while waiting and len(running) < max_rows:
                row = waiting.pop(0)
                engine.step([row])
                if row.finish_reason is None:
                    running.append(row)
            if len(running) > 1 and engine.shares_steps:
                engine.step(running)
            else:
                for row in running:
                    engine.step([row])
            running = [row for row in running if row.finish_reason is None]
    finally:
        for row in rows:
            row.cancel()
            engine.release(row)


class StepSharing:
    """Joins the decoding steps of generations that run in several threads.

    The first thread that comes leads: it waits a moment for the rows of the last step, makes the forward for all that
    have come, and wakes their threads. A generation that runs alone never waits.
    """

    def __init__(self, engine: Engine, max_rows: int) -> None:
        self._engine = engine
        self._max_rows = max_rows
        self._changed = threading.Condition()
        self._arrived: list[Row] = []
        self._expected: WeakSet[Row] = WeakSet()
        """Rows of the last step that have neither come again nor left."""
        self._led = False
        self._failed: dict[int, BaseException] = {}

    def advance(self, row: Row) -> None:
        """Compute the row's next token, sharing the forward with whoever comes at the same time."""
        with self._changed:
            self._arrived.append(row)
            row.thread = threading.get_ident()
            self._expected.discard(row)
            self._changed.notify_all()
            while self._led and any(r is row for r in self._arrived):
                self._changed.wait()
            if not any(r is row for r in self._arrived):
                self._raise_failure(row)
                return
            self._led = True
            self._wait_for_expected()
            # The leader's own row is among them whatever the limit.
            others = [r for r in self._arrived if r is not row]
            rows = [row, *others[: self._max_rows - 1]]
        failures = self._step(rows)
        with self._changed:
            self._led = False
            self._arrived = [r for r in self._arrived if not any(r is done for done in rows)]
            for r in rows:
                r.awaited_in_vain &= len(rows) == 1
            self._expected = WeakSet(r for r in rows if r.finish_reason is None and not r.awaited_in_vain)
            self._failed |= failures
            self._changed.notify_all()
            self._raise_failure(row)

    def leave(self, row: Row) -> None:
        """A row that has ended is not waited for.

        The garbage collector may call this in the middle of any of the other methods, on the same thread.
        """
        with self._changed:
            self._failed.pop(id(row), None)
            self._changed.notify_all()

    def _wait_for_expected(self) -> None:
        end, here = time.monotonic() + _PATIENCE, threading.get_ident()
        # What this very thread reads cannot come while it waits.
        while self._awaited(here) and len(self._arrived) < self._max_rows:
            left = end - time.monotonic()
            if left <= 0:
                for row in self._expected:
                    row.awaited_in_vain = True
                self._expected.clear()
                return
            self._changed.wait(left)

    def _awaited(self, here: int) -> bool:
        return any(row.thread != here and row.finish_reason is None for row in self._expected)

    def _step(self, rows: list[Row]) -> dict[int, BaseException]:
        """One step of each row, together if possible; the errors, by row."""
        if len(rows) > 1 and self._engine.shares_steps:
            try:
                self._engine.step(rows)
            except AdapterError:  # raised before the forward: one row's document is gone, which is nobody else's fault
                pass
            except BaseException as error:  # noqa: BLE001 - every row's thread has to learn of it
                return {id(row): error for row in rows}
            else:
                return {}
        failures: dict[int, BaseException] = {}
        for row in rows:
            try:
                self._engine.step([row])
            except BaseException as error:  # noqa: BLE001 - as above
                failures[id(row)] = error
        return failures

    def _raise_failure(self, row: Row) -> None:
        error = self._failed.pop(id(row), None)
        if error is not None:
            raise error
