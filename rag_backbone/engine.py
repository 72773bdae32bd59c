"""The engine: the only caller of a model's forward.

Generation is an iterator of token steps with their signals, which its consumer may stop at any token. The lock
is held for one forward at a time, not for a generation: every generation has its own keys and values and its
own adapters, so streams interleave freely, and one that nobody reads any more blocks no one.

The engine knows nothing of chat templates, sentences or retrieval.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rag_backbone.adapters import AdapterBackend, AdapterSet, key_of
from rag_backbone.admission import Admission
from rag_backbone.attention import AttentionSwitch
from rag_backbone.batch import Failures, StepSharing, Wanted, absorb, decode_together, raise_first
from rag_backbone.end_states import EndStates, EndStatesRequest, SampleBatch
from rag_backbone.errors import ConfigurationError
from rag_backbone.fair_lock import FairLock
from rag_backbone.forward_thread import ForwardThread, team_released
from rag_backbone.hidden_states import module_of
from rag_backbone.kv_cache import SequenceCache
from rag_backbone.limits import context_window_of, end_ids_of
from rag_backbone.model_call import ModelCall, Output
from rag_backbone.prefill import PrefillSharing, companions, longest_shared
from rag_backbone.prefix_cache import PrefixCache
from rag_backbone.refusals import check_adapters, check_signal, check_window
from rag_backbone.requests import Counts, Generation, Request, ScoredText
from rag_backbone.row import Row
from rag_backbone.row_layout import RowLayout
from rag_backbone.signals import SignalName, distribution
from rag_backbone.stream import TokenStream
from rag_backbone.unicode_text import clean_text
from rag_backbone.weight_changes import WeightChanges

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache


class Engine:
    """Generates with one model.

    Thread-safe. Use one engine for a model; `CausalLM.engine` is that one.

    Args:
        model: A decoder-only `PreTrainedModel` in evaluation mode. It is not changed.
        tokenizer: Its tokenizer.
        prefix_cache_bytes: Memory for keys and values of earlier prompts.
        max_batch: Rows decoded together, and generations of several threads that are under way at once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prefix_cache_bytes: int = 1 << 30,
        max_batch: int = 16,
    ) -> None:
        if max_batch < 1:
            raise ConfigurationError(f"max_batch is {max_batch}; at least 1 row is needed")
        self.model = model
        self.tokenizer = tokenizer
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self.context_window = context_window_of(model, tokenizer)
        self.end_ids = end_ids_of(model, tokenizer)
        self._max_batch = max_batch
        self._lock = FairLock()
        self._admission = Admission(max_batch)
        self._ended: deque[Row] = deque()
        """Rows whose sequences are still to be kept."""
        self._call = ModelCall(model)
        self._together = StepSharing(self, max_batch)
        self._prefills = PrefillSharing(self, self._lock, max_batch)
        self._changes = WeightChanges(model)
        self._thread = ForwardThread()
        self._counts = Counts()

    # ------------------------------------------------------------------ what users call

    def stream(self, request: Request) -> TokenStream:
        """Generate token by token. Nothing is computed before the first step is asked for.

        Raises:
            ContextWindowError: If the prompt leaves no room for a single token.
            SignalUnavailableError: If the model cannot give a requested signal.
            AdapterError: If adapters are requested and none can be attached.
        """
        return TokenStream(self, self._admit(request))

    def generate(self, request: Request) -> Generation:
        """Generate to the end."""
        with self.stream(request) as stream:
            for _ in stream:
                pass
            return stream.generation()

    def generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate several texts: decoding steps together, and prompts of similar length.

        In float32 each row's greedy tokens are those of generating it alone. Models that cannot share a forward
        (see `attention`) generate one text after the other.
        """
        rows = [self._admit(request) for request in requests]
        decode_together(self, rows, self._max_batch)
        return [row.generation() for row in rows]

    @torch.inference_mode()
    @team_released()
    def score(
        self,
        prompt: Sequence[int],
        continuation: Sequence[int],
        *,
        attention: bool = False,
        adapters: AdapterSet | None = None,
    ) -> ScoredText:
        """Signals of `continuation` after `prompt`, in one forward (the prompt's known prefix is reused)."""
        if not prompt or not continuation:
            raise ConfigurationError("score needs a prompt and a continuation of at least one token each")
        check_adapters(adapters, self._call.backend)
        if attention:
            check_signal("attention", self.signals, self.model)
        ids, n = [*prompt, *continuation], len(continuation)
        check_window(self.context_window, len(ids))
        with self._lock:
            sequence = self._known(adapters, list(prompt))
            new = ids[len(sequence.ids) :]
            out = self._forward(
                [new], sequence.cache, adapters=[adapters], keep=n + 1, queries=n + 1 if attention else 0
            )
            sequence.ids = ids
            self.prefixes.put(key_of(adapters), sequence)
        logits = out.logits[0, :-1]
        log_z, entropies = distribution(logits, entropy=True)
        chosen = logits.gather(1, torch.tensor(list(continuation), device=logits.device)[:, None])[:, 0]
        assert entropies is not None
        return ScoredText(tuple(continuation), chosen - log_z, entropies, out.attention[0] if attention else None)

    @torch.inference_mode()
    @team_released()
    def end_states(self, request: EndStatesRequest) -> EndStates:
        """Sample several continuations of one prompt, and take the hidden state at each one's end.

        All samples are decoded in one batch that shares the prompt's keys and values, of which a known prefix is
        reused and what is computed is kept. Needs the signal `attention`: only a plain softmax can be taken apart so.
        """
        check_signal("attention", self.signals, self.model)
        check_adapters(request.adapters, self._call.backend)
        module_of(self.model, request.hidden_state)
        prompt = list(request.prompt)
        room = self._room_after(len(prompt))
        with self._lock:
            self._keep_ended()
            shared = self._known(request.adapters, prompt)
            work = Counts(cached_tokens=len(shared.ids))
            if new := prompt[len(shared.ids) : -1]:
                self._forward([new], shared.cache, adapters=[request.adapters])
                shared.ids.extend(new)
                work += Counts(forwards=1, forward_tokens=len(new))
        limit = min(request.max_new_tokens, room)
        batch = SampleBatch(request, shared, limit, self.tokenizer, self.end_ids, self.model.device)
        while batch.running:
            rows = batch.unfed
            with self._lock:
                adapters = [request.adapters] * len(rows)
                out = self._forward(rows, batch.cache, adapters=adapters, hidden=[request.hidden_state])
            work += Counts(forwards=1, forward_tokens=len(rows), generated_tokens=len(rows))
            batch.absorb(out.logits[:, -1], out.hidden[request.hidden_state])
        with self._lock:
            self.prefixes.put(key_of(request.adapters), shared)
            # At its last step a sample draws no token; forwards are counted where they are made.
            work -= Counts(generated_tokens=request.samples)
            self._counts += replace(work, forwards=0, forward_tokens=0)
        return batch.result(work)

    @torch.inference_mode()
    @team_released()
    def attention(self, ids: Sequence[int], *, adapters: AdapterSet | None = None) -> Tensor:
        """Last-layer attention of a forward over `ids` alone: (heads, tokens, tokens) float32.

        Nothing precedes the ids, no special token is added, and no cache is read or kept.
        """
        check_signal("attention", self.signals, self.model)
        check_adapters(adapters, self._call.backend)
        check_window(self.context_window, len(ids))
        with self._lock:
            self._notice_changes()
            out = self._forward([list(ids)], None, adapters=[adapters], queries=len(ids))
        return out.attention[0]

    @torch.inference_mode()
    @team_released()
    def attention_row(self, ids: Sequence[int], *, adapters: AdapterSet | None = None) -> Tensor:
        """Last-layer attention of the last of `ids` over all of them: (heads, tokens) float32.

        The known prefix is reused, and what is computed is kept.
        """
        check_signal("attention", self.signals, self.model)
        check_adapters(adapters, self._call.backend)
        check_window(self.context_window, len(ids))
        with self._lock:
            self._keep_ended()
            sequence = self._known(adapters, list(ids))
            new = list(ids[len(sequence.ids) :])
            out = self._forward([new], sequence.cache, adapters=[adapters], queries=1)
            sequence.ids.extend(new)
            self.prefixes.put(key_of(adapters), sequence)
        return out.attention[0][:, 0]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer(clean_text(text, "a text for the model"), add_special_tokens=False).input_ids)

    def attach(self, backend: AdapterBackend) -> None:
        """Let requests name adapters, which `backend` applies."""
        with self._lock:
            self._call.backend = backend

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[PreTrainedModel]:
        """The model itself, for a computation of one's own; no generation takes a step meanwhile.

        Hold it for a forward and its backward, not for a whole training run, and leave the model as it was.
        """
        with self._lock, team_released():
            self._thread.rest()
            yield self.model

    @property
    def signals(self) -> frozenset[SignalName]:
        """The signals that this model gives."""
        names: set[SignalName] = {"logprob", "entropy", "hidden_state"}
        if self._tried_out().supported:
            names.add("attention")
        return frozenset(names)

    @property
    def counts(self) -> Counts:
        """All work done so far."""
        return self._counts

    def __repr__(self) -> str:
        return (
            f"Engine({type(self.model).__name__}, {self.model.dtype}, {self.model.device}, "
            f"{len(self.prefixes)} prefixes in {self.prefixes.nbytes / 2**20:.0f} MiB)"
        )

    # ------------------------------------------------------------------ what streams and batches call

    def advance(self, row: Row) -> None:
        """Compute the row's next token: its prompt's unknown part first, then one token at a time.

        Rows of other threads share the forward: those that are decoding at the same time, or, in prefill, whoever waits
        for the model at the same time.
        """
        with self._admission.step(row):
            if row.decodes:
                self._together.advance(row)
            elif row.shares_prefill:
                self._prefills.advance(row)
            else:
                raise_first(self.step([row]))

    @torch.inference_mode()
    @team_released()
    def step(self, rows: list[Row], wanted: Wanted | None = None) -> Failures:
        """One forward for the next token of each row that has not ended; what went wrong with single rows only.

        Args:
            rows: At least one.
            wanted: Tells, once the lock is held, of which rows the step is; of these by default.
        """
        with self._lock:
            self._keep_ended()
            if wanted is not None:
                rows = wanted(rows)
            rows = [row for row in rows if row.finish_reason is None]  # others were left while they waited
            if not rows:
                return {}
            output = self.feed(rows)
        return absorb(rows, output)

    @torch.inference_mode()
    def feed(self, rows: Sequence[Row]) -> Output:
        """The forward of a step, under the lock. If it fails, every row is as before."""
        self._keep_ended()
        sequences = [self._sequence_of(row) for row in rows]
        new = [row.unfed() for row in rows]
        alone = len(rows) == 1
        signals = [row.request.signals for row in rows]
        try:
            output = self._forward(
                new if alone else RowLayout(sequences, new),
                sequences[0].cache if alone else None,
                adapters=[row.request.adapters for row in rows],
                queries=1 if any(s.attention for s in signals) else 0,
                hidden={s.hidden_state for s in signals if s.hidden_state is not None},
                following="entropy" if any(s.entropy for s in signals) else "tokens",
            )
        except BaseException:
            for row, sequence in zip(rows, sequences, strict=True):
                if sequence.can_roll_back:  # some layers have grown
                    sequence.truncate(len(sequence.ids))
                else:  # nobody may go on with what is half done
                    row.sequence = None
            raise
        for row, sequence, ids in zip(rows, sequences, new, strict=True):
            sequence.ids.extend(ids)
            row.counts += Counts(forwards=1, forward_tokens=len(ids))
        return output

    def companions(self, first: Row, others: Sequence[Row], room: int) -> list[Row]:
        """Which rows that wait are prefilled with the first one, at most `room`; under the lock."""
        if not others or not first.shares_prefill:
            return []
        self._call.switch.try_out()
        if not self._call.switch.prefills_rows:
            return []
        longest = longest_shared(self.model.device)
        return companions(first, others, self.prefixes, room=room, longest=longest, mixed=self._call.mixes_adapters)

    def riders(self, rows: Sequence[Row]) -> list[Row]:
        """Decoding rows that wait for their next token and can have it from these rows' prefill; under the lock."""
        switch = self._call.switch
        if not (switch.tried_out and switch.prefills_rows and switch.decodes_rows):
            return []
        if any(row.request.signals.hidden_state is not None for row in rows):
            return []
        waiting = self._together.waiting()[: max(self._max_batch - len(rows), 0)]
        mixed = self._call.mixes_adapters
        return [row for row in waiting if mixed or all(row.key == other.key for other in rows)]

    def delivered(self, riders: Sequence[Row], failures: Failures) -> None:
        """Wake the threads of rows that were taken along."""
        self._together.delivered(riders, failures)

    def bucket(self, rows: Sequence[Row], most: int) -> list[Row]:
        """The first row, and those of the others that are prefilled with it; `most` in all."""
        with self._lock:
            return [rows[0], *self.companions(rows[0], rows[1:], most - 1)]

    @property
    def shares_steps(self) -> bool:
        """Whether rows of several generations can share a forward."""
        return self._tried_out().decodes_rows

    @property
    def is_known_to_share_steps(self) -> bool:
        """The same, as far as that has been found out."""
        return self._call.switch.tried_out and self._call.switch.decodes_rows

    def release(self, row: Row) -> None:
        """Keep what a row computed, for prompts that begin with it.

        Never waits: a stream that somebody dropped is closed by the garbage collector, which may run in the middle of
        this thread's own forward. Where the engine is busy, whoever is next keeps it.
        """
        self._together.leave(row)
        self._ended.append(row)
        if self._lock.take_if_free():
            try:
                self._keep_ended()
            finally:
                self._lock.release()

    @torch.inference_mode()
    def _keep_ended(self) -> None:
        """Under the lock."""
        while self._ended:
            row = self._ended.popleft()
            if row.sequence is not None:
                self.prefixes.put(key_of(row.request.adapters), row.sequence)
                row.sequence = None
            self._counts += Counts(generated_tokens=len(row.generated))

    # ------------------------------------------------------------------ helpers

    def _forward(self, ids: RowLayout | Sequence[list[int]], cache: Cache | None = None, **options: Any) -> Output:
        """A `ModelCall`, counted; under the lock and in inference mode."""
        if self.model.device.type == "cpu":
            output = self._thread.run(lambda: self._call(ids, cache, **options))
        else:
            output = self._call(ids, cache, **options)
        new = ids.new if isinstance(ids, RowLayout) else ids
        self._counts += Counts(forwards=1, forward_tokens=sum(map(len, new)))
        return output

    def _tried_out(self) -> AttentionSwitch:
        """The switch, which has found out what this model supports. Only the first call needs the lock."""
        switch = self._call.switch
        if not switch.tried_out:
            with self._lock:
                switch.try_out()
        return switch

    def _notice_changes(self) -> None:
        """Forget what was computed with weights that have been changed since. Under the lock."""
        if self._changes.found():
            self.prefixes.clear()

    def _known(self, adapters: AdapterSet | None, ids: list[int]) -> SequenceCache:
        self._notice_changes()
        found = self.prefixes.take(key_of(adapters), ids)
        return found if found is not None else SequenceCache.empty(self.model.config)

    def _sequence_of(self, row: Row) -> SequenceCache:
        """The row's; at its first step what is known of its prompt, and from then on others find it."""
        if row.sequence is None:
            row.sequence = self._known(row.request.adapters, row.prompt_ids)
            self.prefixes.share(row.key, row.sequence)
            known = Counts(cached_tokens=len(row.sequence.ids))
            row.counts += known
            self._counts += known
        return row.sequence

    def _admit(self, request: Request) -> Row:
        """Everything that can be refused is refused here, before the first forward."""
        check_adapters(request.adapters, self._call.backend)
        if request.signals.attention:
            check_signal("attention", self.signals, self.model)
        if request.signals.hidden_state is not None:
            module_of(self.model, request.signals.hidden_state)
        ids = request.prompt
        ids = list(self.tokenizer(clean_text(ids, "the prompt")).input_ids) if isinstance(ids, str) else list(ids)
        if not ids:
            raise ConfigurationError("the prompt is empty; at least one token is needed to predict the next")
        room = self._room_after(len(ids))
        return Row(request, ids, min(request.max_new_tokens, room), self.tokenizer, self.end_ids, self.model.device)

    def _room_after(self, tokens: int) -> int:
        """How many tokens may follow a prompt of so many; at least one."""
        check_window(self.context_window, tokens + 1)
        return self.context_window - tokens
