"""Sampled continuations of one prompt, and the hidden state at the end-of-sequence position of each.

SeaKR (Yao et al. 2024) estimates a model's uncertainty from these states. All samples are drawn in one batch that
shares the prompt's keys and values. A sample ends at the end-of-sequence token, where the caller's `ends_at` says so,
or at the token limit. Then the end-of-sequence token is fed instead of the next sampled token, and the hidden state at
its position is recorded. This module does not know what the states are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rag_backbone.engine.adapters import AdapterSet
from rag_backbone.engine.batching.shared_prompt import SharedPromptCache
from rag_backbone.engine.requests import TokenCounts
from rag_backbone.engine.sampling import Sampling, draw, seeded
from rag_backbone.engine.stop_strings import Detokenizer
from rag_backbone.errors import ConfigurationError, SignalUnavailableError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from rag_backbone.engine.kv_cache import SequenceCache

EndsAt = Callable[[str], int | None]
"""Maps a sample's text so far to the number of characters to keep if the sample is complete, or None if it is not."""


@dataclass(frozen=True, slots=True)
class EOSStatesRequest:
    """A request for sampled end-of-sequence states.

    Raises:
        ConfigurationError: If a number is less than 1, the prompt is empty, or the sampling has a constraint, which
            samples cannot follow.
    """

    prompt: Sequence[int]
    hidden_state: str | int
    """A layer's index or a module's dotted name, as in `Signals`."""
    samples: int = 20
    max_new_tokens: int = 100
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, top_k=50, top_p=0.9))
    ends_at: EndsAt | None = None
    adapters: AdapterSet | None = None
    answer_from: int | None = None
    """As in `Request`."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.sampling.constraint is not None:
            raise ConfigurationError("samples cannot follow a constraint; pass a Sampling without one")
        if not len(self.prompt):
            raise ConfigurationError("the prompt is empty; at least one token is needed to predict the next")


@dataclass(frozen=True, slots=True, repr=False)
class EOSStates:
    """The sampled texts and their end-of-sequence states, in the order of the samples.

    A state is the hidden state at the end-of-sequence token; SeaKR measures a model's uncertainty by how much they
    differ.
    """

    states: Tensor
    """(samples, width) float32."""
    token_ids: tuple[tuple[int, ...], ...]
    """The kept tokens of each sample, without the end-of-sequence token."""
    texts: tuple[str, ...]
    counts: TokenCounts

    def __repr__(self) -> str:
        return f"EOSStates({len(self.texts)} samples, width {self.states.shape[1]}, {self.counts})"


class SampleBatch:
    """The samples in progress.

    The engine runs the forward passes; this class prepares their inputs and reads their outputs.
    """

    def __init__(
        self,
        request: EOSStatesRequest,
        prompt: SequenceCache,
        limit: int,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: frozenset[int],
        device: torch.device,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise SignalUnavailableError(
                "the tokenizer has no end-of-sequence token, but the state at its position was requested"
            )
        self.prompt = prompt
        """The sequence that all samples continue."""
        self._request = request
        self._end_ids = end_ids
        self._end: int = tokenizer.eos_token_id
        self._limit = limit
        n = request.samples
        self.cache = SharedPromptCache(prompt, n, limit + 1)
        self._rows = list(range(n))
        """The samples that are still in the batch, in batch order."""
        self._next = [request.prompt[-1]] * n
        self._ids: list[list[int]] = [[] for _ in range(n)]
        self._pieces: list[list[str]] = [[] for _ in range(n)]
        self._detokenizers = [Detokenizer(tokenizer, request.prompt) for _ in range(n)]
        self._ending = [False] * n
        self._states: dict[int, Tensor] = {}
        self._generator = seeded(request.sampling, device)

    @property
    def running(self) -> bool:
        """Whether another forward pass is needed."""
        return bool(self._rows)

    @property
    def unfed(self) -> list[list[int]]:
        """The next input token of each sample in the batch, one per row."""
        return [[token] for token in self._next]

    def absorb(self, logits: Tensor, hidden: Tensor) -> None:
        """Process the results of a forward pass.

        Args:
            logits: (rows, vocabulary) float32.
            hidden: (rows, width).
        """
        tokens = draw(logits, self._request.sampling, self._generator).tolist()
        kept_rows, lengths, following = [], [], []
        for i, (sample, token) in enumerate(zip(self._rows, tokens, strict=True)):
            if self._ending[sample]:  # the end-of-sequence token was fed
                self._states[sample] = hidden[i].float().clone()
                continue
            fed = len(self._ids[sample])
            kept_rows.append(i)
            kept = self._take(sample, token)
            if kept is not None:
                self._ending[sample] = True
                del self._ids[sample][kept:], self._pieces[sample][kept:]
            # The prompt's last token is the first token of each private suffix.
            lengths.append(1 + (fed if kept is None else kept))
            following.append(token if kept is None else self._end)
        self._rows = [self._rows[i] for i in kept_rows]
        self._next = following
        self.cache.keep(kept_rows, lengths)

    def _take(self, sample: int, token: int) -> int | None:
        """Add a token; return how many tokens to keep if the sample is complete.

        Only tokens that were fed can be kept.
        """
        fed = len(self._ids[sample])
        if token in self._end_ids:
            return fed
        self._ids[sample].append(token)
        self._pieces[sample].append(self._detokenizers[sample].push(token))
        if self._request.ends_at is not None:
            characters = self._request.ends_at("".join(self._pieces[sample]))
            if characters is not None:
                return min(fed, _tokens_within(self._pieces[sample], characters))
        # At the limit, the last token is replaced by the end-of-sequence token, as in the published code.
        return fed if fed + 1 >= self._limit else None

    def result(self, counts: TokenCounts) -> EOSStates:
        """Return the samples and their states; call it once `running` is false."""
        return EOSStates(
            torch.stack([self._states[i] for i in range(self._request.samples)]),
            tuple(tuple(ids) for ids in self._ids),
            tuple("".join(pieces) for pieces in self._pieces),
            counts,
        )


def _tokens_within(pieces: Sequence[str], characters: int) -> int:
    """Return how many tokens start before the given character position."""
    start = count = 0
    for piece in pieces:
        if start >= characters:
            break
        start += len(piece)
        count += 1
    return count
