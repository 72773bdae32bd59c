"""Choosing a token: greedy, or by temperature, top-k and top-p with a seed; logit bias; and what may come at all.

What a `Constraint` is made from (a grammar, a schema) is not known here; see `grammar`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Generator, Tensor


class TokenFilter(Protocol):
    """Which tokens may come next in one generation."""

    @property
    def complete(self) -> bool:
        """Whether no token may come any more, so that the text ends here."""
        ...

    def allowed(self, logits: Tensor) -> Tensor:
        """The logits (vocabulary,) with -inf for every token that may not come next; what is given stays as it is."""
        ...

    def accept(self, token_id: int) -> None:
        """Take note of the token that was chosen."""
        ...


class Constraint(Protocol):
    """What generations must look like."""

    def begin(self) -> TokenFilter:
        """The filter of a generation of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. The default is greedy.

    `top_k` and `top_p` keep the same tokens as transformers' logits processors, in the same order
    (temperature, then top-k, then top-p).
    """

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    seed: int | None = None
    """With a seed the same prompt gives the same text; without one each generation differs."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to what is added to its logit before anything else (OpenAI's meaning)."""
    constraint: Constraint | None = None
    """What the text must look like; temperature, top-k and top-p choose among the tokens that it leaves."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigurationError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigurationError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < 0:
            raise ConfigurationError(f"top_k is {self.top_k}; it must be 0 (keep all) or more")


class Sampler:
    """Chooses one row's tokens, keeping the state of its random generator."""

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
        self._generator: Generator | None = None
        if sampling.temperature > 0:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    @property
    def takes_likeliest(self) -> bool:
        """Whether it always chooses the (first) largest logit."""
        return self._generator is None and self._bias is None and self._filter is None

    @property
    def complete(self) -> bool:
        """Whether the constraint leaves nothing more to choose."""
        return self._filter is not None and self._filter.complete

    def accept(self, token_id: int) -> None:
        """Take note of a token that became part of the text."""
        if self._filter is not None:
            self._filter.accept(token_id)

    def __call__(self, logits: Tensor) -> Tensor:
        """Choose from `logits` (vocabulary,) float32, which are left as they are; returns a scalar tensor."""
        import torch

        if self._bias is not None:
            logits = logits.index_add(0, *self._bias)
        if self._filter is not None:
            logits = self._filter.allowed(logits)
        if self._generator is None:
            return greedy(logits)
        kept = keep_likeliest(logits / self.sampling.temperature, self.sampling.top_k, self.sampling.top_p)
        return torch.multinomial(torch.softmax(kept, -1), 1, generator=self._generator)[0]


def draw(logits: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """One token for each row, from the distribution that `Sampler` draws from; bias and constraint are not looked at.

    Args:
        logits: (rows, vocabulary) float32.
        sampling: The same for all rows.
        generator: Advanced by the draw.

    Returns:
        (rows,).
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    # The likeliest are looked at alone: sorting whole vocabularies would take as long as the forward.
    width = logits.shape[-1]
    k = min(sampling.top_k or width, width)
    best, order = torch.topk(logits, k) if k < width else torch.sort(logits, descending=True)
    masses = torch.softmax(best, -1)
    if sampling.top_p < 1:
        before = masses.cumsum(-1) - masses
        masses = masses.masked_fill(before >= sampling.top_p, 0.0)
    return order.gather(-1, torch.multinomial(masses, 1, generator=generator))[:, 0]


def greedy(logits: Tensor) -> Tensor:
    """The index of the (first) largest of (..., vocabulary): (...,)."""
    import torch

    if logits.device.type == "cpu":  # torch's own argmax takes thirty times as long there
        return torch.as_tensor(logits.numpy().argmax(-1))
    return logits.argmax(-1)


def keep_likeliest(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set to -inf all but the `top_k` likeliest tokens, then all outside the nucleus of mass `top_p`.

    Args:
        logits: (vocabulary,).
        top_k: 0 keeps all.
        top_p: The smallest set whose mass reaches `top_p` is kept; always at least one token.
    """
    import torch

    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < torch.topk(logits, top_k).values[-1], -math.inf)
    if top_p < 1:
        ordered, order = torch.sort(logits, descending=False)
        below = torch.softmax(ordered, -1).cumsum(-1) <= 1 - top_p
        below[-1] = False
        logits = logits.masked_fill(torch.zeros_like(below).scatter(0, order, below), -math.inf)
    return logits
