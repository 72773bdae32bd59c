"""The engine: the thread-safe interface to one model.

Generation is an iterator of token steps with their signals, and its consumer may stop at any token. One thread calls
the model, for one token of each sequence at a time (see `scheduler`). Every generation has its own keys, values and
adapters, so streams interleave freely, and a stream that is no longer read does not block the others.

The engine knows nothing of chat templates, sentences or retrieval.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

from rag_backbone.engine.adapters import AdapterBackend, AdapterSet, SequenceAdapters
from rag_backbone.engine.batching.packed_layout import PackedLayout
from rag_backbone.engine.ensemble import AdapterEnsemble, EnsembleState
from rag_backbone.engine.eos_states import EOSStates, EOSStatesRequest, samples_of
from rag_backbone.engine.hidden_states import module_of
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.model_limits import context_window_of, end_ids_of
from rag_backbone.engine.prefix_cache import PrefixCache
from rag_backbone.engine.requests import Generation, Request, ScoredText, TokenCounts
from rag_backbone.engine.scheduler import Scheduler
from rag_backbone.engine.sequence import SequenceState
from rag_backbone.engine.signals import SignalName, distribution
from rag_backbone.engine.stream import TokenStream
from rag_backbone.engine.validation import check_adapters, check_one_set, check_signal, check_window
from rag_backbone.engine.worker import Worker
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Engine:
    """Generates with one model.

    Thread-safe. Use one engine per model; `CausalLM.engine` is that engine.

    Args:
        model: A decoder-only `PreTrainedModel` in evaluation mode. It is not changed.
        tokenizer: The model's tokenizer.
        prefix_cache_bytes: Memory limit for keys and values of earlier prompts.
        max_batch: Maximum number of sequences in one decode batch, and of generations from different threads that may
            be in progress at once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prefix_cache_bytes: int = 1 << 30,
        max_batch: int = 32,
    ) -> None:
        if max_batch < 1:
            raise ConfigurationError(f"max_batch is {max_batch}; at least 1 is needed")
        self.model = model
        self.tokenizer = tokenizer
        self.context_window = context_window_of(model, tokenizer)
        self.end_ids = end_ids_of(model, tokenizer)
        self._max_batch = max_batch
        self._runner = Worker(model, prefix_cache_bytes)
        self._scheduler = Scheduler(self._runner, max_batch)

    def stream(self, request: Request) -> TokenStream:
        """Generate token by token. Nothing is computed before the first step is requested.

        Raises:
            ContextWindowError: If the prompt leaves no room for a single token.
            SignalUnavailableError: If the model cannot provide a requested signal.
            AdapterError: If adapters are requested but no backend is attached.
        """
        return TokenStream(self, self._admit(request))

    def generate(self, request: Request) -> Generation:
        """Generate until the request is finished."""
        with self.stream(request) as stream:
            for _ in stream:
                pass
            return stream.generation()

    def generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate several texts, batching their decoding and the prefill of short prompts.

        A finished text makes room for the next one. In float32, greedy decoding gives the same tokens as generating
        each text alone. Models that cannot batch sequences (see `attention`) generate one text after the other.
        """
        with self._finished(requests) as rows:
            return [row.generation() for row in rows]

    def score(
        self,
        prompt: Sequence[int],
        continuation: Sequence[int],
        *,
        attention: bool = False,
        hidden_states: Sequence[str | int] = (),
        adapters: AdapterSet | None = None,
        answer_from: int | None = None,
    ) -> ScoredText:
        """Return the signals of `continuation` after `prompt`, from one forward pass that reuses the cached prefix.

        Args:
            prompt: Token ids before the continuation.
            continuation: Token ids that are read.
            attention: Whether to return attention rows.
            hidden_states: Modules whose output to return, as `Signals.hidden_state` names one.
            adapters: Adapters. Those that act from the answer on act on the continuation, or from `answer_from` on.
            answer_from: As in `Request`.
        """
        if not prompt or not continuation:
            raise ConfigurationError("score needs a prompt and a continuation of at least one token each")
        check_adapters(adapters, self._runner.call.backend)
        check_one_set(adapters)
        if attention:
            check_signal("attention", self.signals, self.model)
        for name in hidden_states:
            module_of(self.model, name)
        ids, n = [*prompt, *continuation], len(continuation)
        check_window(self.context_window, len(ids))
        own = SequenceAdapters.of(adapters, len(prompt), answer_from)

        def score() -> ScoredText:
            queries = n + 1 if attention else 0
            out = self._runner.forward_from_cache(
                own, ids, prompt=len(prompt), keep=n + 1, queries=queries, hidden=hidden_states
            )
            states = {name: found[0, :-1].float() for name, found in out.hidden.items()}
            return _scored(continuation, out.logits[0, :-1], out.attention[0] if attention else None, states)

        return self._scheduler.run(score)

    def score_batch(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[ScoredText]:
        """Return what `score` returns for each of several continuations of one prompt, under the base model.

        The prompt is read once, and all continuations in one forward pass where the model can batch prompts.
        """
        if not prompt or not all(continuations):
            raise ConfigurationError("score_batch needs a prompt and continuations of at least one token each")
        check_window(self.context_window, len(prompt) + max(map(len, continuations), default=0))
        base = SequenceAdapters(None)

        def score() -> list[ScoredText] | None:
            runner = self._runner
            if len(continuations) < 2 or not runner.switch.prefills_rows:
                return None
            shared = runner.known(base, list(prompt))
            if new := list(prompt[len(shared.ids) : -1]):
                runner.forward([new], shared.cache, adapters=[base])
                shared.ids.extend(new)
            runner.prefixes.put(base.key, shared)
            rows = [shared.copy(len(shared.ids)) for _ in continuations]
            fed = [[prompt[-1], *continuation[:-1]] for continuation in continuations]
            out = runner.forward(PackedLayout(rows, fed), adapters=[base] * len(rows), keep=None)
            logits = out.logits.flatten(0, 1).split([len(ids) for ids in fed])
            return [_scored(*found) for found in zip(continuations, logits, strict=True)]

        found = self._scheduler.run(score)
        return [self.score(prompt, one) for one in continuations] if found is None else found

    def end_states(self, request: EOSStatesRequest) -> EOSStates:
        """Sample several continuations of one prompt and return the hidden state at the end of each.

        The samples share forward passes with one another and with other requests. The prompt is computed once, or taken
        from the cache, and stays cached.

        Raises:
            SignalUnavailableError: If the tokenizer has no end-of-sequence token, or there is no such hidden state.
        """
        if self.tokenizer.eos_token_id is None:
            raise SignalUnavailableError(
                "the tokenizer has no end-of-sequence token, but the state at its position was requested"
            )
        check_one_set(request.adapters)
        module_of(self.model, request.hidden_state)
        samples = samples_of(request)
        with self._finished([sample.request for sample in samples]) as rows:
            kept = [sample.kept(row) for sample, row in zip(samples, rows, strict=True)]
            states, work = self._scheduler.run(lambda: self._states_at_ends(rows, kept, request.hidden_state))
            ids = tuple(tuple(row.generated[:n]) for row, n in zip(rows, kept, strict=True))
            texts = tuple("".join(s.text for s in row.steps[:n]) for row, n in zip(rows, kept, strict=True))
            passes = work.forwards + max(row.counts.forwards for row in rows)  # samples take part in the same ones
            counts = replace(sum((row.counts for row in rows), work), forwards=passes)
            return EOSStates(states, ids, texts, counts)

    def _states_at_ends(
        self, rows: Sequence[SequenceState], kept: Sequence[int], name: str | int
    ) -> tuple[Tensor, TokenCounts]:
        """Feed the end-of-sequence token after the kept tokens of finished generations of one prompt.

        Afterwards, only the prompt is left to be cached. Runs in the model thread.

        Returns:
            The hidden states at that token, (rows, width) float32, and the work.
        """
        runner, before = self._runner, self._runner.counts
        fed: list[tuple[SequenceCache, list[int], SequenceAdapters]] = []
        for row, count in zip(rows, kept, strict=True):
            ids = [*row.prompt_ids, *row.generated[:count]]
            sequence = row.sequence
            if sequence is None or (len(sequence.ids) > len(ids) and not sequence.can_roll_back):
                sequence = runner.known(row.adapters, ids)
            elif len(sequence.ids) > len(ids):
                sequence.truncate(len(ids))
            start = len(sequence.ids)
            fed.append((sequence, [*ids[start:], self.tokenizer.eos_token_id], row.adapters.at(start)))
            row.sequence = None
        sequences, new, adapters = zip(*fed, strict=True)
        if len(fed) > 1 and all(len(ids) == 1 for ids in new) and runner.switch.decodes_rows:
            out = runner.forward(PackedLayout(sequences, new), adapters=adapters, hidden=[name])
            states = out.hidden[name][:, -1]
        else:
            found = [runner.forward([ids], one.cache, adapters=[own], hidden=[name]) for one, ids, own in fed]
            states = torch.cat([out.hidden[name][:, -1] for out in found])
        if sequences[0].can_roll_back:
            sequences[0].truncate(len(rows[0].prompt_ids))
            rows[0].sequence = sequences[0]
        return states.float(), runner.counts - before

    def attention(self, ids: Sequence[int], *, adapters: AdapterSet | None = None) -> Tensor:
        """Return the last layer's attention in a forward pass over `ids` alone: (heads, tokens, tokens) float32.

        Nothing precedes the ids, no special token is added, and the prefix cache is neither read nor written. Adapters
        act on all ids, as on an answer.
        """
        self._check_attention(ids, adapters)

        def attend() -> Tensor:
            self._runner.notice_changes()
            own = [SequenceAdapters(adapters)]
            return self._runner.forward([list(ids)], None, adapters=own, queries=len(ids)).attention[0]

        return self._scheduler.run(attend)

    def attention_row(
        self, ids: Sequence[int], *, adapters: AdapterSet | None = None, answer_from: int | None = None
    ) -> Tensor:
        """Return the last layer's attention of the last of `ids` to all of them: (heads, tokens) float32.

        The cached prefix is reused, and newly computed keys and values are cached. `answer_from` as in `Request`.
        """
        self._check_attention(ids, adapters)
        own = SequenceAdapters.of(adapters, len(ids), answer_from)
        out = self._scheduler.run(lambda: self._runner.forward_from_cache(own, list(ids), queries=1))
        return out.attention[0][:, 0]

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        return list(self.tokenizer(clean_text(text, "a text for the model"), add_special_tokens=False).input_ids)

    def attach(self, backend: AdapterBackend) -> None:
        """Attach the backend that applies the adapters that requests name."""
        self._runner.call.backend = backend

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in the model thread; no generation takes a step while it runs.

        Gradients are recorded in the call if they are enabled for the caller. Pass a forward and its backward pass, not
        a whole training run, and leave the model as it was.
        """
        gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        context = contextvars.copy_context()

        def call() -> _T:
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                return context.run(function, *args, **kwargs)

        return self._scheduler.run(call)

    def close(self) -> None:
        """End the model thread once all pending requests are done; later requests are refused."""
        self._scheduler.close()

    @property
    def prefixes(self) -> PrefixCache:
        """Cached keys and values of earlier prompts and of all streams that have ended.

        Modify it only while nothing is being generated.
        """
        self._scheduler.run(lambda: None)  # wait until the thread has processed earlier messages
        return self._runner.prefixes

    @property
    def signals(self) -> frozenset[SignalName]:
        """The signals that this model can provide."""
        names: set[SignalName] = {"logprob", "entropy", "hidden_state"}
        switch = self._runner.call.switch
        self._runner.check_device()
        if not switch.tried_out:
            self._scheduler.run(switch.try_out)
        if switch.supported:
            names.add("attention")
        return frozenset(names)

    @property
    def shares_steps(self) -> bool:
        """Whether several generations can share a forward pass."""
        return self._scheduler.run(lambda: self._runner.switch.decodes_rows)

    @property
    def counts(self) -> TokenCounts:
        """All work done so far, including streams that have ended."""
        return self._scheduler.run(lambda: self._runner.counts)

    def advance(self, row: SequenceState) -> None:
        """Compute the next token of a sequence; called by `TokenStream`."""
        self._advance([row])

    def release(self, row: SequenceState) -> None:
        """Cache what a sequence computed, for prompts that begin with it. Never blocks."""
        for part in row.parts:
            self._scheduler.leave(part)

    @contextlib.contextmanager
    def _finished(self, requests: Sequence[Request]) -> Iterator[Sequence[SequenceState]]:
        """Generate several texts and yield their final states, which are released when the context ends."""
        rows = [self._admit(request) for request in requests]
        waiting, running = deque(rows), list[SequenceState]()
        try:
            while waiting or running:
                while waiting and sum(len(row.parts) for row in running) < self._max_batch:
                    running.append(waiting.popleft())
                self._advance(running)
                running = [row for row in running if row.finish_reason is None]
            yield rows
        finally:
            for row in rows:
                row.cancel()
                self.release(row)

    def _advance(self, rows: Sequence[SequenceState]) -> None:
        """Compute the next token of each sequence; that of an ensemble once all its members have their logits."""
        self._scheduler.advance([one for row in rows for one in row.scheduled])
        for row in rows:
            if isinstance(row, EnsembleState):
                if row.chosen is None:
                    self._scheduler.run(row.choose_mixed)
                row.take()

    def __repr__(self) -> str:
        prefixes = self._runner.prefixes
        return (
            f"Engine({type(self.model).__name__}, {self.model.dtype}, {self.model.device}, "
            f"{len(prefixes)} prefixes in {prefixes.nbytes / 2**20:.0f} MiB)"
        )

    def _check_attention(self, ids: Sequence[int], adapters: AdapterSet | None) -> None:
        check_signal("attention", self.signals, self.model)
        check_adapters(adapters, self._runner.call.backend)
        check_one_set(adapters)
        check_window(self.context_window, len(ids))

    def _admit(self, request: Request) -> SequenceState:
        """Validate a request before the first forward pass, and return its initial state."""
        check_adapters(request.adapters, self._runner.call.backend)
        if request.signals.attention or request.signals.hidden_state is not None:
            check_one_set(request.adapters)
        if request.signals.attention:
            check_signal("attention", self.signals, self.model)
        if request.signals.hidden_state is not None:
            module_of(self.model, request.signals.hidden_state)
        ids = request.prompt
        ids = list(self.tokenizer(clean_text(ids, "the prompt")).input_ids) if isinstance(ids, str) else list(ids)
        if not ids:
            raise ConfigurationError("the prompt is empty; at least one token is needed to predict the next")
        room = self._room_after(len(ids))
        kind = EnsembleState if isinstance(request.adapters, AdapterEnsemble) else SequenceState
        return kind(request, ids, min(request.max_new_tokens, room), self.tokenizer, self.end_ids, self.model.device)

    def _room_after(self, tokens: int) -> int:
        """Return how many tokens may follow a prompt of `tokens` tokens; at least one."""
        check_window(self.context_window, tokens + 1)
        return self.context_window - tokens


def _scored(
    token_ids: Sequence[int],
    logits: Tensor,
    attention: Tensor | None = None,
    hidden_states: Mapping[str | int, Tensor] | None = None,
) -> ScoredText:
    """Return the signals of tokens, given the logits that predict them: (tokens, vocabulary) float32."""
    log_z, entropies = distribution(logits, entropy=True)
    chosen = logits.gather(1, torch.tensor(list(token_ids), device=logits.device)[:, None])[:, 0]
    assert entropies is not None
    return ScoredText(tuple(token_ids), chosen - log_z, entropies, attention, hidden_states or {})
