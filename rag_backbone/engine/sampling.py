"""Token sampling: greedy, or by temperature, top-k and top-p with a seed; logit bias; and constraints.

This module does not know how a `Constraint` is defined (by a grammar or a schema); see `grammar`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor


class TokenFilter(Protocol):
    """Decides which tokens may come next in one generation."""

    @property
    def complete(self) -> bool:
        """Whether no further token is allowed, so that the text ends here."""
        ...

    def allowed(self, logits: Tensor) -> Tensor:
        """Return a copy of the logits, (vocabulary,), with -inf for every token that is not allowed next."""
        ...

    def accept(self, token_id: int) -> None:
        """Record the chosen token."""
        ...


class Constraint(Protocol):
    """A constraint on the form of generated text."""

    def begin(self) -> TokenFilter:
        """Return a fresh filter for one generation."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """Options for choosing tokens. The default is greedy.

    `top_k` and `top_p` are applied in transformers' order (temperature, then top-k, then top-p).
    """

    temperature: float = 0.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    seed: int | None = None
    """The same prompt with the same seed gives the same text; without a seed every generation differs."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to the value added to its logit before anything else (as in OpenAI's API)."""
    constraint: Constraint | None = None
    """Constraint on the text; temperature, top-k and top-p choose among the tokens that it allows."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigurationError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigurationError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < 0:
            raise ConfigurationError(f"top_k is {self.top_k}; it must be 0 (keep all) or more")


class Sampler:
    """Chooses the tokens of one sequence and holds the state of its random generator."""

    def __init__(self, sampling: Sampling, device: str) -> None:
        import torch

        self.sampling = sampling
        self._bias: tuple[Tensor, Tensor] | None = None
        if sampling.logit_bias:
            self._bias = (
                torch.tensor(list(sampling.logit_bias), device=device),
                torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32, device=device),
            )
        self._filter = None if sampling.constraint is None else sampling.constraint.begin()
        self._generator = seeded(sampling, device) if sampling.temperature > 0 else None

    @property
    def takes_likeliest(self) -> bool:
        """Whether the sampler always chooses the (first) largest logit."""
        return self._generator is None and self._bias is None and self._filter is None

    @property
    def complete(self) -> bool:
        """Whether the constraint allows no further token."""
        return self._filter is not None and self._filter.complete

    def accept(self, token_id: int) -> None:
        """Record a token that became part of the text."""
        if self._filter is not None:
            self._filter.accept(token_id)

    def __call__(self, logits: Tensor) -> Tensor:
        """Choose a token from `logits` (vocabulary,) float32, which are not modified; return a scalar tensor."""
        if self._bias is not None:
            logits = logits.index_add(0, *self._bias)
        if self._filter is not None:
            logits = self._filter.allowed(logits)
        if self._generator is None:
            return greedy(logits)
        return draw(logits, self.sampling, self._generator)


def seeded(sampling: Sampling, device: str | torch.device) -> Generator:
    """Return a generator on a device that starts from the seed, or from a random state if there is none."""
    import torch

    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def draw(logits: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """Draw a token by temperature, top-k and top-p; bias and constraint have been applied.

    Args:
        logits: (vocabulary,) float32.
        sampling: Its temperature is above 0.
        generator: Advanced by the draw.

    Returns:
        The token id, a scalar.
    """
    import torch

    logits = logits / sampling.temperature
    k = min(sampling.top_k or len(logits), len(logits))
    if k == len(logits) and sampling.top_p == 1:
        return torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[0]
    # Only the likeliest tokens are sorted: sorting a whole vocabulary takes as long as a small model's forward pass.
    best, order = torch.topk(logits, k) if k < len(logits) else torch.sort(logits, descending=True)
    masses = torch.softmax(best, -1)
    masses = masses.masked_fill(masses.cumsum(-1) - masses >= sampling.top_p, 0.0)
    return order[torch.multinomial(masses, 1, generator=generator)[0]]


def greedy(logits: Tensor) -> Tensor:
    """Return the index of the (first) largest logit of (..., vocabulary): (...,)."""
    import torch

    if logits.device.type == "cpu":  # torch's own argmax takes thirty times as long there
        return torch.as_tensor(logits.numpy().argmax(-1))
    return logits.argmax(-1)
