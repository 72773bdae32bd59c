"""The model thread's work: forward passes, and the cache of earlier ones.

Only the model thread calls this module (see `scheduler`), so nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from rag_backbone.engine.adapters import SequenceAdapters, tokens_in_common
from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.batching.packed_layout import PackedLayout
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.model_runner import ModelRunner, Output
from rag_backbone.engine.prefix_cache import PrefixCache, common_prefix
from rag_backbone.engine.requests import TokenCounts
from rag_backbone.engine.validation import check_device
from rag_backbone.engine.weight_changes import WeightChanges
from rag_backbone.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

    from rag_backbone.engine.sequence import SequenceState

_CPU_TURN = 256
"""Prompt tokens in one prefill chunk on a CPU, which bounds how long a decoding sequence waits."""
_DEVICE_TURN = 2048
_WORTH_WAITING = 32
"""Uncached tokens that two prompts must share for one to wait for the other: computing fewer twice costs less than
another forward pass."""

Failures: TypeAlias = "dict[SequenceState, BaseException]"
"""The error of each sequence that failed."""


class Worker:
    """Runs one model.

    Args:
        model: The model.
        prefix_cache_bytes: Memory limit for keys and values of earlier prompts.
    """

    def __init__(self, model: PreTrainedModel, prefix_cache_bytes: int) -> None:
        self.model = model
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self.call = ModelRunner(model)
        self.counts = TokenCounts()
        """All work done so far."""
        self._changes = WeightChanges(model)
        self._device = model.device

    def check_device(self) -> None:
        """Refuse a model that was moved to another device."""
        check_device(self.model, self._device)

    @property
    def switch(self) -> AttentionPatch:
        """The model's attention patch, after trying out what the model supports."""
        self.check_device()
        self.call.switch.try_out()
        return self.call.switch

    def forward(self, ids: PackedLayout | Sequence[list[int]], cache: Cache | None = None, **options: Any) -> Output:
        """Run the `ModelRunner` and count the work.

        Raises:
            ConfigurationError: If the model was moved to another device.
        """
        self.check_device()
        output = self.call(ids, cache, **options)
        new = ids.new if isinstance(ids, PackedLayout) else ids
        self.counts += TokenCounts(forwards=1, forward_tokens=sum(map(len, new)))
        return output

    def known(self, adapters: SequenceAdapters, ids: list[int]) -> SequenceCache:
        """Return the cache of the longest known prefix of `ids`, to be continued; empty if there is none."""
        self.notice_changes()
        found = self.prefixes.take(adapters.key, ids)
        return found if found is not None else SequenceCache.empty(self.model.config)

    def forward_from_cache(
        self, adapters: SequenceAdapters, ids: list[int], *, prompt: int | None = None, **options: Any
    ) -> Output:
        """Run a forward pass over the ids after the longest known prefix of `ids[:prompt]`, and cache the result."""
        sequence = self.known(adapters, ids[:prompt])
        done = len(sequence.ids)
        output = self.forward([ids[done:]], sequence.cache, adapters=[adapters.at(done)], **options)
        sequence.ids = ids
        self.prefixes.put(adapters.key, sequence)
        return output

    def notice_changes(self) -> None:
        """Clear the prefix cache if the weights have changed since it was computed."""
        self.check_device()
        if self._changes.found():
            self.prefixes.clear()

    # --------------------------------- steps of the scheduling policy; one raises if all of its sequences are affected

    def read(self, first: SequenceState, others: Sequence[SequenceState]) -> tuple[Sequence[SequenceState], Failures]:
        """Prefill a chunk of the first sequence's prompt, or all of it together with as many other prompts as fit.

        Returns:
            The sequences whose prefill is complete, so that they have a token; and the errors of single sequences.
        """
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
        except Exception as error:  # noqa: BLE001 - affects all sequences
            return rows, dict.fromkeys(rows, error)

    def decode(self, rows: Sequence[SequenceState]) -> Failures:
        """Compute one token for each sequence, in one batch if the model supports that."""
        if len(rows) > 1 and not self.switch.decodes_rows:
            return self._in_turn(rows)
        return self._tokens(rows)

    def leave(self, row: SequenceState) -> None:
        """Cache what a sequence computed, for prompts that begin with it."""
        if row.sequence is not None:
            self.prefixes.put(row.key, row.sequence)
            row.sequence = None
        self.counts += TokenCounts(generated_tokens=row.counts.generated_tokens)

    # ------------------------------------------------------------------------------------------------------- helpers

    def _companions(self, first: SequenceState, others: Sequence[SequenceState], most: int) -> list[SequenceState]:
        """Return the sequences whose whole prompts are prefilled with the first one's, in order."""
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
        """Run a forward pass over each sequence's unfed tokens and choose its next token.

        If an error may be caused by a single sequence, each sequence is retried alone.
        """
        try:
            for row in rows:
                self._sequence_of(row)
            output = self._feed(rows, [row.unfed() for row in rows])
        # An adapter error comes from one sequence, whose document is gone; memory may suffice for a smaller batch.
        except (AdapterError, torch.OutOfMemoryError) as error:
            return {rows[0]: error} if len(rows) == 1 else self._in_turn(rows)
        return _chosen(rows, output)

    def _in_turn(self, rows: Sequence[SequenceState]) -> Failures:
        failures: Failures = {}
        for row in rows:
            try:
                failures |= self._tokens([row])
            except Exception as error:  # noqa: BLE001 - affects this sequence only
                failures[row] = error
        return failures

    def _feed(self, rows: Sequence[SequenceState], new: Sequence[list[int]], *, signals: bool = True) -> Output:
        """Run one forward pass. If it fails, every sequence is restored to its previous state."""
        sequences = [self._sequence_of(row) for row in rows]
        alone = len(rows) == 1
        wanted = [row.request.signals for row in rows] if signals else []
        try:
            output = self.forward(
                new if alone else PackedLayout(sequences, new),
                sequences[0].cache if alone else None,
                adapters=[row.adapters.at(len(s.ids)) for row, s in zip(rows, sequences, strict=True)],
                queries=1 if any(s.attention for s in wanted) else 0,
                hidden={s.hidden_state for s in wanted if s.hidden_state is not None},
                following="entropy" if any(s.entropy for s in wanted) else "tokens",
            )
        except BaseException:
            for row, sequence in zip(rows, sequences, strict=True):
                if sequence.can_roll_back:  # some layers have grown
                    sequence.truncate(len(sequence.ids))
                else:  # a partial update cannot be continued
                    row.sequence = None
            raise
        for row, sequence, ids in zip(rows, sequences, new, strict=True):
            sequence.ids.extend(ids)
            row.counts += TokenCounts(forwards=1, forward_tokens=len(ids))
        return output

    def _sequence_of(self, row: SequenceState) -> SequenceCache:
        """Return the sequence's cache.

        The first step starts from the longest known prefix and makes the cache available to other sequences.
        """
        if row.sequence is None:
            row.sequence = self.known(row.adapters, row.prompt_ids)
            self.prefixes.share(row.key, row.sequence)
            known = TokenCounts(cached_tokens=len(row.sequence.ids))
            row.counts += known
            self.counts += known
        return row.sequence


def _chosen(rows: Sequence[SequenceState], output: Output) -> Failures:
    """Let each sequence choose its token from the output of a forward pass; errors affect only that sequence."""
    failures: Failures = {}
    assert output.next_tokens is not None
    for i, (row, following) in enumerate(zip(rows, output.next_tokens.rows(), strict=True)):
        signals = row.request.signals
        attention = output.attention[i][:, 0] if signals.attention else None
        hidden = None if signals.hidden_state is None else output.hidden[signals.hidden_state][i, -1]
        try:
            row.choose(output.logits[i, -1], following, attention, hidden)
        except Exception as error:  # noqa: BLE001 - affects this sequence only
            failures[row] = error
    return failures


def _repeats(row: SequenceState, unknown: int, other: SequenceState) -> bool:
    """Return whether much of a prompt that is not cached yet will be once the other sequence is prefilled."""
    known = len(row.prompt_ids) - unknown
    common = common_prefix(row.prompt_ids, other.prompt_ids)
    return min(common, tokens_in_common(row.key, other.key)) - known >= _WORTH_WAITING
