"""Sampled continuations of one prompt, and the hidden state at the end-of-sequence position of each.

SeaKR (Yao et al. 2024) estimates a model's uncertainty from these states. A sample ends at the end-of-sequence token,
where the caller's `ends_at` says so, or at the token limit. Then the end-of-sequence token is fed instead of the next
sampled token, and the hidden state at its position is recorded. This module does not know what the states are used for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from rag_backbone.engine.adapters import AdapterSet
from rag_backbone.engine.requests import Request, TokenCounts
from rag_backbone.engine.sampling import Sampling, seeded
from rag_backbone.engine.signals import TokenStep
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.engine.sequence import SequenceState

EndsAt = Callable[[str], int | None]
"""Maps a sample's text so far to the number of characters to keep if the sample is complete, or None if it is not."""


@dataclass(frozen=True, slots=True)
class EOSStatesRequest:
    """A request for sampled end-of-sequence states.

    Raises:
        ConfigurationError: If a number is less than 1, or the prompt is empty.
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


class Sample:
    """One sample: an ordinary generation, so that it shares forward passes with the others and with other requests."""

    def __init__(self, request: EOSStatesRequest, seed: int) -> None:
        self._ends_at = request.ends_at
        self._text = ""
        self._characters: int | None = None
        self.request = Request(
            request.prompt,
            request.max_new_tokens,
            sampling=replace(request.sampling, seed=seed),
            adapters=request.adapters,
            answer_from=request.answer_from,
            stop_when=self._ends,
        )

    def _ends(self, step: TokenStep) -> bool:
        self._text += step.text
        self._characters = None if self._ends_at is None else self._ends_at(self._text)
        return self._characters is not None

    def kept(self, row: SequenceState) -> int:
        """Return how many tokens of the finished generation belong to the sample."""
        if row.finish_reason == "eos":
            return len(row.generated)
        # The last token was not fed: the end-of-sequence token takes its place, at the limit as in the published code.
        fed = len(row.generated) - 1
        if self._characters is None:
            return fed
        return min(fed, _tokens_within([step.text for step in row.steps], self._characters))


def samples_of(request: EOSStatesRequest) -> list[Sample]:
    """Return the samples of a request, each with a seed of its own that follows from the request's."""
    generator = seeded(request.sampling, "cpu")
    seeds = torch.randint(1 << 62, (request.samples,), generator=generator)
    return [Sample(request, seed) for seed in seeds.tolist()]


def _tokens_within(pieces: Sequence[str], characters: int) -> int:
    """Return how many tokens start before the given character position."""
    start = count = 0
    for piece in pieces:
        if start >= characters:
            break
        start += len(piece)
        count += 1
    return count
