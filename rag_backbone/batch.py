"""Several generations in one forward: those of one caller, and those of several threads that happen to decode at once.

What several threads prefill is joined in `prefill`.

A step of several rows costs little more than one of a single row, because reading the weights is what a step costs.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch

from rag_backbone.errors import AdapterError
from rag_backbone.row import Row

if TYPE_CHECKING:
    from rag_backbone.engine import Engine
    from rag_backbone.model_call import Output

Failures = dict[int, BaseException]
"""What went wrong, by the `id` of the row."""

# How long a step waits for rows that took part in the last one. Their threads only have to look at a token. One that
# was waited for in vain (it has gone off to retrieve, or its reader takes turns with this one) is not waited for again
# until it has shared a step.
_PATIENCE = 0.02


def decode_together(engine: Engine, rows: Sequence[Row], max_rows: int) -> None:
    """Advance all rows to their ends, at most `max_rows` at a time; a row that ends makes room for the next.

    Prompts of similar length are prefilled together.
    """
    waiting, running = list(rows), list[Row]()
    try:
        while waiting or running:
            while waiting and len(running) < max_rows:
                begun = engine.bucket(waiting, max_rows - len(running))
                raise_first(together(engine, begun, engine.step))
                waiting = [row for row in waiting if not any(row is other for other in begun)]
                running += [row for row in begun if row.finish_reason is None]
            raise_first(step_rows(engine, running))
            running = [row for row in running if row.finish_reason is None]
    finally:
        for row in rows:
            row.cancel()
            engine.release(row)


@torch.inference_mode()
def absorb(rows: Sequence[Row], output: Output) -> Failures:
    """Let each row take its own of what a forward gave; what goes wrong there (in its `stop_when`) is its own too."""
    failures: Failures = {}
    assert output.next_tokens is not None
    for i, (row, following) in enumerate(zip(rows, output.next_tokens.rows(), strict=True)):
        if row.finish_reason is not None:  # cancelled meanwhile
            continue
        signals = row.request.signals
        attention = output.attention[i][:, 0] if signals.attention else None
        hidden = None if signals.hidden_state is None else output.hidden[signals.hidden_state][i]
        try:
            row.absorb(output.logits[i, -1], following, attention, hidden)
        except Exception as error:  # noqa: BLE001 - every row's own thread has to learn of it
            failures[id(row)] = error
    return failures


Forward = Callable[[list[Row]], Failures]
"""A forward of these rows; gives what went wrong with single ones."""


def together(engine: Engine, rows: list[Row], forward: Forward, alone: Forward | None = None) -> Failures:
    """Make a forward of these rows; where it fails for what may be one row's fault, each row makes its own.

    Args:
        engine: The rows'.
        rows: At least one; the forward may add others.
        forward: Of all of them.
        alone: Of each, then; a step by default.

    Raises:
        BaseException: Only what interrupts this thread, which is not the others' concern.
    """
    try:
        return forward(rows)
    # Adapters are looked for before the forward: one row's document is gone. Memory may suffice for fewer rows.
    except (AdapterError, torch.OutOfMemoryError) as error:
        if len(rows) == 1:
            return {id(rows[0]): error}
    except Exception as error:  # noqa: BLE001 - every row's thread has to learn of it
        return {id(row): error for row in rows}
    return _in_turn(engine, rows, alone or engine.step)


def raise_first(failures: Failures) -> None:
    """Raise what went wrong, if anything did."""
    for error in failures.values():
        raise error


Wanted = Callable[[list[Row]], list[Row]]
"""Once a step has the model: of which rows it really is. Those that are more go into the list that it gets, too."""


def step_rows(engine: Engine, rows: list[Row], wanted: Wanted | None = None, alone: Wanted | None = None) -> Failures:
    """One decoding step of each row, together if possible; see `Engine.step`.

    Args:
        engine: The rows'.
        rows: At least one.
        wanted: Of which rows a step together is.
        alone: Of which a step of one row alone is.
    """

    def each(now: list[Row]) -> Failures:
        return engine.step(now, alone)

    # What the model supports is not found out for a single row, which others may join.
    if engine.shares_steps if len(rows) > 1 else wanted is not None and engine.is_known_to_share_steps:
        return together(engine, rows, lambda now: engine.step(now, wanted), each)
    return _in_turn(engine, rows, each)


def _in_turn(engine: Engine, rows: Sequence[Row], step: Forward) -> Failures:
    """One step of each row, whatever happens to the others."""
    failures: Failures = {}
    for row in rows:
        failures |= together(engine, [row], step)
    return failures


class StepSharing:
    """Joins the decoding steps of generations that run in several threads.

    The first thread that comes leads: it waits a moment for the rows of the last step, makes the forward for all that
    have come by the time it has the model, and wakes their threads. A generation that runs alone never waits. While the
    leader queues up for the model behind a prompt, that prompt's forward takes the waiting rows along: a few tokens
    more cost it little.
    """

    def __init__(self, engine: Engine, max_rows: int) -> None:
        self._engine = engine
        self._max_rows = max_rows
        self._changed = threading.Condition()
        self._arrived: list[Row] = []
        self._expected: WeakSet[Row] = WeakSet()
        """Rows of the last step that have neither come again nor left."""
        self._led = False
        self._computing = False
        """Whether the leader has, or had, the model: it is about to hand over tokens."""
        self._failed: Failures = {}

    def advance(self, row: Row) -> None:
        """Compute the row's next token, sharing the forward with whoever comes at the same time."""
        with self._changed:
            row.asked_at = len(row.generated)
            self._arrived.append(row)
            self._expected.discard(row)
            self._changed.notify_all()
            try:
                while self._led and any(r is row for r in self._arrived):
                    self._changed.wait()
            except BaseException:  # interrupted: nobody else takes this row's step
                self._arrived = [r for r in self._arrived if r is not row]
                raise
            if not any(r is row for r in self._arrived):
                self._raise_failure(row)
                return
            self._led = True
        try:
            with self._changed:
                self._wait_for_expected()
                rows = self._gathered(row)
                asked = [(r, len(r.generated)) for r in rows]
            failures = step_rows(self._engine, rows, functools.partial(self._now, asked), self._still_waiting)
        except BaseException:  # interrupted: the others make the step without this one
            with self._changed:
                self._led = self._computing = False
                self._arrived = [r for r in self._arrived if r is not row]
                self._changed.notify_all()
            raise
        with self._changed:
            self._led = self._computing = False
            self._note(rows, failures)
            self._expected |= WeakSet(r for r in rows if self._comes_again(r))
            self._changed.notify_all()
            self._raise_failure(row)

    def _gathered(self, leader: Row) -> list[Row]:
        """Whose step it is to be. The leader's own row is among them whatever the limit."""
        return [leader, *[r for r in self._arrived if r is not leader][: self._max_rows - 1]]

    def _now(self, asked: Sequence[tuple[Row, int]], rows: list[Row]) -> list[Row]:
        """Whose step it is, now that the leader has the model: others have come while it waited for that.

        If all who asked with it got their tokens from a prompt's forward, it leaves the step to the next one to lead:
        then its own row takes part too.

        Args:
            asked: The leader, and those who had come as it asked, and how many tokens each had then.
            rows: The same; in the end those of the step.
        """
        with self._changed:
            self._computing = True
            if not any(self._waits(row) and len(row.generated) == n for row, n in asked):
                return []
            self._wait_for_expected()  # those who rode with a prompt have only just got their tokens
            rows[:] = [row for row in self._gathered(asked[0][0]) if self._waits(row)]
            return rows

    def waiting(self) -> list[Row]:
        """Rows whose token nobody has computed yet; for the holder of the engine's lock, who may compute it.

        Like a leader it waits a moment for those that have just got one.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._computing, _PATIENCE)
            self._wait_for_expected()
            return [row for row in self._arrived if row.rides and not row.has_moved]

    def _still_waiting(self, rows: list[Row]) -> list[Row]:
        with self._changed:
            self._computing = True
            return [row for row in rows if self._waits(row)]

    def _waits(self, row: Row) -> bool:
        return not row.has_moved and any(row is r for r in self._arrived)

    def delivered(self, rows: Sequence[Row], failures: Failures) -> None:
        """The holder of the lock has computed the tokens of waiting rows, or tried to."""
        with self._changed:
            self._note(rows, failures)
            for row in rows:
                if self._comes_again(row):
                    self._expected.add(row)
            self._changed.notify_all()

    def _note(self, rows: Sequence[Row], failures: Failures) -> None:
        done = {id(row) for row in rows if row.has_moved or id(row) in failures}
        self._arrived = [row for row in self._arrived if id(row) not in done]
        for row in rows:
            row.awaited_in_vain &= len(rows) == 1
        self._failed |= failures

    def _comes_again(self, row: Row) -> bool:
        here = any(row is r for r in self._arrived)  # it has come already, after a prompt's forward
        return row.finish_reason is None and not row.awaited_in_vain and not here

    def leave(self, row: Row) -> None:
        """A row that has ended is not waited for.

        The garbage collector may call this in the middle of any of the other methods, on the same thread.
        """
        with self._changed:
            self._failed.pop(id(row), None)
            self._changed.notify_all()

    def _wait_for_expected(self) -> None:
        end, here = time.monotonic() + _PATIENCE, threading.current_thread()
        # What this very thread reads cannot come while it waits.
        while self._awaited(here) and len(self._arrived) < self._max_rows:
            left = end - time.monotonic()
            if left <= 0:
                for row in self._expected:
                    row.awaited_in_vain = True
                self._expected.clear()
                return
            self._changed.wait(left)

    def _awaited(self, here: threading.Thread) -> bool:
        return any(row.thread is not here and row.finish_reason is None for row in self._expected)

    def _raise_failure(self, row: Row) -> None:
        error = self._failed.pop(id(row), None)
        if error is not None:
            raise error
