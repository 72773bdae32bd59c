"""What the model's thread does with a model: forwards, and what is known from earlier ones.

Everything here is called in that thread alone (see `scheduler`), so nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from rag_backbone.engine.adapters import AdapterSet, key_of
from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.batching.packed_layout import PackedLayout
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.model_runner import ModelRunner, Output
from rag_backbone.engine.prefix_cache import PrefixCache, common_prefix
from rag_backbone.engine.requests import TokenCounts
from rag_backbone.engine.scheduling_policy import Failures
from rag_backbone.engine.weight_changes import WeightChanges
from rag_backbone.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

    from rag_backbone.engine.sequence import SequenceState

_CPU_TURN = 256
"""Tokens of prompts that are read in one turn on a CPU: a decoding sequence waits for no more than these."""
_DEVICE_TURN = 2048
_WORTH_WAITING = 32
"""Common unknown tokens that are better computed once: another forward is no dearer than to compute them again."""


class Worker:
    """Runs one model.

    Args:
        model: The model.
        prefix_cache_bytes: Memory for keys and values of earlier prompts.
    """

    def __init__(self, model: PreTrainedModel, prefix_cache_bytes: int) -> None:
        self.model = model
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self.call = ModelRunner(model)
        self.counts = TokenCounts()
        """All work done so far."""
        self._changes = WeightChanges(model)

    @property
    def switch(self) -> AttentionPatch:
        """The model's attention, which has found out what the model supports."""
        self.call.switch.try_out()
        return self.call.switch

    def forward(self, ids: PackedLayout | Sequence[list[int]], cache: Cache | None = None, **options: Any) -> Output:
        """A `ModelRunner`, counted."""
        output = self.call(ids, cache, **options)
        new = ids.new if isinstance(ids, PackedLayout) else ids
        self.counts += TokenCounts(forwards=1, forward_tokens=sum(map(len, new)))
        return output

    def known(self, adapters: AdapterSet | None, ids: list[int]) -> SequenceCache:
        """The longest known beginning of some ids, to be continued; empty if there is none."""
        self.notice_changes()
        found = self.prefixes.take(key_of(adapters), ids)
        return found if found is not None else SequenceCache.empty(self.model.config)

    def notice_changes(self) -> None:
        """Forget what was computed with weights that have been changed since."""
        if self._changes.found():
            self.prefixes.clear()

    # ----------------------------------------------------------------------------------- the turns of `turns.Steps`

    def read(self, first: SequenceState, others: Sequence[SequenceState]) -> tuple[Sequence[SequenceState], Failures]:
        """Read a part of the first row's prompt, or all of it and those of others."""
        most = _CPU_TURN if self.model.device.type == "cpu" else _DEVICE_TURN
        rows = [first, *self._companions(first, others, most)]
        if len(rows) == 1:
            sequence = self._sequence_of(first)
            new = first.unfed()
            if len(new) > most and sequence.can_roll_back:
                self._feed([first], [new[:most]], signals=False)
                return (), {}
        try:
            return rows, self._tokens(rows)
        except Exception as error:  # noqa: BLE001 - everybody's
            return rows, dict.fromkeys(rows, error)

    def decode(self, rows: Sequence[SequenceState]) -> Failures:
        """One token for each row, together if the model can do that."""
        if len(rows) > 1 and not self.switch.decodes_rows:
            return self._in_turn(rows)
        return self._tokens(rows)

    def leave(self, row: SequenceState) -> None:
        """Keep what a row computed, for prompts that begin with it."""
        if row.sequence is not None:
            self.prefixes.put(row.key, row.sequence)
            row.sequence = None
        self.counts += TokenCounts(generated_tokens=len(row.generated))

    # ------------------------------------------------------------------------------------------------------- helpers

    def _companions(self, first: SequenceState, others: Sequence[SequenceState], most: int) -> list[SequenceState]:
        """Rows whose whole prompts are read with the first one's, in their order."""
        if not others or not first.shares_prefill or not self.switch.prefills_rows:
            return []
        self.notice_changes()
        mixed = self.call.mixes_adapters
        chosen, total = [first], self._unknown(first)
        for row in others:
            if not row.shares_prefill or not (mixed or row.key == first.key):
                continue
            unknown = self._unknown(row)
            if total + unknown > most or any(_repeats(row, unknown, one) for one in chosen):
                continue
            chosen.append(row)
            total += unknown
        return chosen[1:]

    def _unknown(self, row: SequenceState) -> int:
        return len(row.prompt_ids) - self.prefixes.known(row.key, row.prompt_ids)

    def _tokens(self, rows: Sequence[SequenceState]) -> Failures:
        """A forward over what each row has not fed yet, and the choice of its next token.

        Where it fails for what may be one row's fault, each row makes its own.
        """
        try:
            for row in rows:
                self._sequence_of(row)
            output = self._feed(rows, [row.unfed() for row in rows])
        # Adapters are looked for before the forward: one row's document is gone. Memory may suffice for fewer rows.
        except (AdapterError, torch.OutOfMemoryError) as error:
            return {rows[0]: error} if len(rows) == 1 else self._in_turn(rows)
        return _chosen(rows, output)

    def _in_turn(self, rows: Sequence[SequenceState]) -> Failures:
        failures: Failures = {}
        for row in rows:
            try:
                failures |= self._tokens([row])
            except Exception as error:  # noqa: BLE001 - the row's own
                failures[row] = error
        return failures

    def _feed(self, rows: Sequence[SequenceState], new: Sequence[list[int]], *, signals: bool = True) -> Output:
        """One forward. If it fails, every row is as before."""
        sequences = [self._sequence_of(row) for row in rows]
        alone = len(rows) == 1
        wanted = [row.request.signals for row in rows] if signals else []
        try:
            output = self.forward(
                new if alone else PackedLayout(sequences, new),
                sequences[0].cache if alone else None,
                adapters=[row.request.adapters for row in rows],
                queries=1 if any(s.attention for s in wanted) else 0,
                hidden={s.hidden_state for s in wanted if s.hidden_state is not None},
                following="entropy" if any(s.entropy for s in wanted) else "tokens",
            )
        except BaseException:
            for row, sequence in zip(rows, sequences, strict=True):
                if sequence.can_roll_back:  # some layers have grown
                    sequence.truncate(len(sequence.ids))
                else:  # what is half done cannot be gone on with
                    row.sequence = None
            raise
        for row, sequence, ids in zip(rows, sequences, new, strict=True):
            sequence.ids.extend(ids)
            row.counts += TokenCounts(forwards=1, forward_tokens=len(ids))
        return output

    def _sequence_of(self, row: SequenceState) -> SequenceCache:
        """The row's; at its first step what is known of its prompt, and from then on others find it."""
        if row.sequence is None:
            row.sequence = self.known(row.request.adapters, row.prompt_ids)
            self.prefixes.share(row.key, row.sequence)
            known = TokenCounts(cached_tokens=len(row.sequence.ids))
            row.counts += known
            self.counts += known
        return row.sequence


def _chosen(rows: Sequence[SequenceState], output: Output) -> Failures:
    """Let each row choose its token from what a forward gave; what goes wrong there is its own."""
    failures: Failures = {}
    assert output.next_tokens is not None
    for i, (row, following) in enumerate(zip(rows, output.next_tokens.rows(), strict=True)):
        signals = row.request.signals
        attention = output.attention[i][:, 0] if signals.attention else None
        hidden = None if signals.hidden_state is None else output.hidden[signals.hidden_state][i]
        try:
            row.choose(output.logits[i, -1], following, attention, hidden)
        except Exception as error:  # noqa: BLE001 - the row's own
            failures[row] = error
    return failures


def _repeats(row: SequenceState, unknown: int, other: SequenceState) -> bool:
    """Whether much of what is unknown of a row will be known when the other one is done."""
    if row.key != other.key:
        return False
    known = len(row.prompt_ids) - unknown
    return common_prefix(row.prompt_ids, other.prompt_ids) - known >= _WORTH_WAITING
