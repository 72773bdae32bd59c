"""The signals that the engine can report for each token, and their formulas.

All signals are computed in the decoding pass from the raw logits in float32, before logit bias, constraint, temperature
and truncation. A token that a constraint forced is reported with the probability that the model gave it. Knows nothing
of triggers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rag_backbone.engine.sampling import greedy
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

SignalName = Literal["logprob", "entropy", "attention", "hidden_state"]


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals requested for a generation; the chosen token's log-probability is always reported.

    Raises:
        ConfigurationError: If `top_logprobs` or a token id is negative.
    """

    top_logprobs: int = 0
    """Number of most likely alternatives to report for each token."""
    entropy: bool = False
    """The entropy of the whole next-token distribution, in nats."""
    attention: bool = False
    """The last layer's self-attention row of the position that predicted the token."""
    hidden_state: str | int | None = None
    """A decoder layer's index or a module's dotted name; its output at the position that predicted the token is
    reported."""
    tokens: tuple[int, ...] = ()
    """Token ids whose log-probabilities to report at every step, chosen or not."""

    def __post_init__(self) -> None:
        if self.top_logprobs < 0:
            raise ConfigurationError(f"top_logprobs is {self.top_logprobs}; it must be 0 or more alternatives")
        if any(token < 0 for token in self.tokens):
            raise ConfigurationError(f"tokens contains {min(self.tokens)}; token ids must be 0 or more")


@dataclass(frozen=True, slots=True)
class TokenStep:
    """One generated token.

    The distribution that the token was drawn from belongs to the position before it, and so do `attention` and
    `hidden_state`: they are those of the query that predicted this token.
    """

    index: int
    """Position of the token in this generation, from 0."""
    token_id: int
    text: str
    """The characters that this token completes: empty while a multi-byte character is unfinished."""
    logprob: float
    """Natural logarithm of the token's probability."""
    entropy: float | None = None
    """Entropy in nats; None unless requested."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability) of the likeliest tokens, best first."""
    attention: Tensor | None = None
    """The predicting position's attention to all positions up to and including itself: (heads, keys) float32."""
    hidden_state: Tensor | None = None
    """Hidden state of shape (width,), in the model's dtype."""
    token_logprobs: tuple[float, ...] = ()
    """Log-probabilities of the tokens in `Signals.tokens`, in that order."""


@dataclass(frozen=True, slots=True)
class NextTokens:
    """Next-token statistics that every step needs, computed for all rows of a batch at once."""

    log_z: Tensor
    """Log-partition functions, (rows,)."""
    entropy: Tensor | None
    """Entropies in nats, (rows,); None unless a sequence requests them."""
    likeliest: Tensor
    """Tokens with the (first) largest logit, (rows,)."""
    largest: Tensor
    """Largest logits, (rows,)."""

    @classmethod
    def of(cls, logits: Tensor, *, entropy: bool) -> NextTokens:
        """Compute the statistics from (rows, vocabulary) float32 logits."""
        log_z, entropies = distribution(logits, entropy=entropy)
        likeliest = greedy(logits)
        return cls(log_z, entropies, likeliest, logits.gather(-1, likeliest[:, None])[:, 0])

    def rows(self) -> list[NextToken]:
        """Return the statistics of each row; takes two transfers from the device."""
        import torch

        columns = (self.log_z, self.largest) if self.entropy is None else (self.log_z, self.largest, self.entropy)
        numbers = torch.stack(columns, 1).tolist()
        return [
            NextToken(row[0], row[2] if len(row) > 2 else None, token, row[1])
            for row, token in zip(numbers, self.likeliest.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class NextToken:
    """One row of `NextTokens`."""

    log_z: float
    entropy: float | None
    likeliest: int
    largest: float


def distribution(logits: Tensor, *, entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Return the log-partition and entropy of next-token distributions.

    `log p(v) = logits[v] - logZ`; `H = logZ - sum_v p(v) logits[v]`. One table of exponentials serves both, at a third
    of the cost of a table of log-probabilities.

    Args:
        logits: (..., vocabulary) float32; -inf is allowed.
        entropy: Whether to compute the entropy.

    Returns:
        `logZ`: (...,), and the entropy in nats: (...,) or None.
    """
    import torch

    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()  # in place: allocating a second table takes longer than computing it
    total = weights.sum(-1)
    log_z = top[..., 0] + total.log()
    if not entropy:
        return log_z, None
    mean = torch.linalg.vecdot(weights, logits) / total
    if bool(mean.isnan().any()):  # 0 * -inf, from tokens that cannot occur
        mean = (weights * logits).nansum(-1) / total
    return log_z, (log_z - mean).clamp_min(0.0)
