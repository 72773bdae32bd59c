"""Prefill of several generations in one forward: of those whose prompts wait for the model at the same time.

A forward over a few tokens takes nearly as long as one over many: it reads all weights and starts every kernel. So
whoever gets the model takes along those that queue up behind, in *buckets* of similar length: nobody's first token has
to wait for a text much longer than its own. Nobody is waited for. Prompts that begin alike are left in the queue: by
the time they get there, their common part is known.

Rows that are decoding and would have to wait for a prompt get their next tokens from its forward: a few tokens more
cost a fraction of the step that they would need.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rag_backbone.batch import Failures, absorb, together
from rag_backbone.fair_lock import FairLock, Turn
from rag_backbone.forward_thread import team_released
from rag_backbone.prefix_cache import PrefixCache, common_prefix
from rag_backbone.row import Row

if TYPE_CHECKING:
    from rag_backbone.engine import Engine
    from rag_backbone.model_call import Output

_RATIO = 1.5
"""The longest unknown part of a bucket to the shortest."""
_SHORT = 32
"""Tokens up to which unknown parts are of similar length whatever their ratio: the weights alone take longer."""
_MAX_TOKENS = 2048
"""All unknown tokens of a bucket: what bounds its memory and the time that it holds the model."""
_CPU_LONGEST = 384
"""Unknown tokens of a row from which on a CPU gains nothing, and first tokens would only come later. Time together to
time in turn, one thread, 135M parameters, float32 and bfloat16: 8 rows of about 30 tokens 0.59 and 0.50, of 150 0.86
and 0.82, 4 rows of 300 0.96 and 0.92, of 450 0.98 and 1.00, 2 rows of 900 0.99 and 1.04."""
_WORTH_WAITING = 32
"""Common unknown tokens that are better computed once: another forward is no dearer than to compute them again."""


def longest_shared(device: torch.device) -> int:
    """Unknown tokens up to which a row shares its prefill."""
    return _CPU_LONGEST if device.type == "cpu" else _MAX_TOKENS


def companions(
    first: Row, others: Sequence[Row], prefixes: PrefixCache, *, room: int, longest: int, mixed: bool
) -> list[Row]:
    """Which of the rows that wait are prefilled with the first one, in their order.

    Args:
        first: The row whose turn it is.
        others: Rows that wait, in the order of their coming.
        prefixes: What is known.
        room: How many at most.
        longest: Of how many unknown tokens each at most.
        mixed: Whether rows with different adapters can be.
    """
    if not first.shares_prefill:
        return []
    least = most = total = _unknown(first, prefixes)
    if most > longest:
        return []
    chosen = [first]
    for row in others:
        if len(chosen) > room:
            break
        if not row.shares_prefill or not (mixed or row.key == first.key):
            continue
        n = _unknown(row, prefixes)
        low, high = min(least, n), max(most, n)
        if high > min(max(_RATIO * low, _SHORT), longest) or total + n > _MAX_TOKENS:
            continue
        if any(_repeats(row, n, c) for c in chosen):
            continue
        chosen.append(row)
        least, most, total = low, high, total + n
    return chosen[1:]


def _unknown(row: Row, prefixes: PrefixCache) -> int:
    return len(row.prompt_ids) - prefixes.known(row.key, row.prompt_ids)


def _repeats(row: Row, unknown: int, other: Row) -> bool:
    """Whether much of what is unknown of a row will be known when the other one is done."""
    if row.key != other.key:
        return False
    known = len(row.prompt_ids) - unknown
    return common_prefix(row.prompt_ids, other.prompt_ids) - known >= _WORTH_WAITING


class _Waiting:
    """A row that waits for its prefill, and its place in the queue for the model."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.turn = Turn()
        self.failure: BaseException | None = None
        self.again = False
        """Whether who took it along was interrupted, so that it has to queue up once more."""


class PrefillSharing:
    """Joins the prefills of generations that run in several threads.

    Each has its own place in the queue for the model. Who comes to its turn leads: it takes others out of the queue,
    makes the forward for all of them, and wakes their threads. So the oldest is always next, and a generation that runs
    alone does what it did.
    """

    def __init__(self, engine: Engine, lock: FairLock, max_rows: int) -> None:
        self._engine = engine
        self._lock = lock
        self._max_rows = max_rows
        self._guard = threading.Lock()
        self._waiting: list[_Waiting] = []

    def advance(self, row: Row) -> None:
        """Compute the row's first token, together with whoever waits at the same time."""
        me = _Waiting(row)
        with self._guard:
            self._waiting.append(me)
        try:
            if self._lock.take(me.turn):
                self._lead(me)
        finally:
            with self._guard:
                self._waiting.remove(me)
        if me.again:
            if not row.generated:  # else the forward had been made already
                self.advance(row)
        elif me.failure is not None:
            raise me.failure

    def _lead(self, me: _Waiting) -> None:
        """Prefill the row and those that go with it. The lock is held, and given back."""
        group = [me]

        @team_released()
        def forward(rows: list[Row]) -> Failures:
            try:
                if me.row.finish_reason is not None:  # cancelled while it waited
                    return {}
                self._join(group)
                rows.extend(one.row for one in group[1:])
                output = self._feed(rows)
            finally:
                self._lock.release()
            return absorb(rows, output)

        try:
            failures = together(self._engine, [me.row], forward)
        except BaseException:
            for one in group[1:]:
                one.again = True
            raise
        else:
            for one in group:
                one.failure = failures.get(id(one.row))
        finally:
            for one in group[1:]:
                one.turn.set()

    def _feed(self, rows: list[Row]) -> Output:
        """The rows' forward, and in it the next tokens of rows that are decoding and would have to wait for it."""
        riders = self._engine.riders(rows)
        if not riders:
            return self._engine.feed(rows)
        try:
            output = self._engine.feed([*rows, *riders])
        except Exception:  # noqa: BLE001 - theirs, or memory does not suffice for all: without them it may do
            return self._engine.feed(rows)
        # Before anybody else can have the model: their sequences have grown.
        self._engine.delivered(riders, absorb(riders, output.part(len(rows), len(rows) + len(riders))))
        return output.part(0, len(rows))

    def _join(self, group: list[_Waiting]) -> None:
        """Add those whom the first one takes along, out of the queue."""
        with self._guard:
            waiting = [one for one in self._waiting if one is not group[0]]
        rows = self._engine.companions(group[0].row, [one.row for one in waiting], self._max_rows - 1)
        taken = (one for one in waiting if any(one.row is row for row in rows))
        group.extend(one for one in taken if self._lock.withdraw(one.turn))
