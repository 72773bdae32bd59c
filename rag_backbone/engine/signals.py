"""What the engine can report of each token, and the formulas behind it.

All signals come from the one decoding pass, from the raw logits in float32: before logit bias, a constraint,
temperature and truncation. A token that a constraint forced is told with the probability that the model gave it.
Knows nothing of triggers.
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
    """The signals that a generation is asked for; the chosen token's log-probability always comes."""

    top_logprobs: int = 0
    """How many of the most likely alternatives to report for each token."""
    entropy: bool = False
    """The entropy of the whole next-token distribution, in nats."""
    attention: bool = False
    """The last layer's self-attention row of the position that predicted the token."""
    hidden_state: str | int | None = None
    """A decoder layer's index or a module's dotted name: its output at the position that predicted the token."""
    tokens: tuple[int, ...] = ()
    """Token ids whose log-probabilities to report at every step, chosen or not."""

    def __post_init__(self) -> None:
        if self.top_logprobs < 0:
            raise ConfigurationError(f"top_logprobs is {self.top_logprobs}; it counts alternatives: 0 or more")
        if any(token < 0 for token in self.tokens):
            raise ConfigurationError(f"tokens has {min(self.tokens)}; token ids are 0 or more")


@dataclass(frozen=True, slots=True)
class TokenStep:
    """One generated token.

    The distribution that the token was drawn from belongs to the position before it, and so do
    `attention` and `hidden_state`: they are those of the query that predicted this token.
    """

    index: int
    """Number of the token in this generation, from 0."""
    token_id: int
    text: str
    """The characters that this token completes: empty while a multi-byte character is unfinished."""
    logprob: float
    """Natural logarithm of the token's probability."""
    entropy: float | None = None
    """In nats; None unless asked for."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability) of the likeliest tokens, best first."""
    attention: Tensor | None = None
    """(heads, keys) float32: the row of the predicting position over all positions up to itself."""
    hidden_state: Tensor | None = None
    """(width,) in the model's dtype."""
    token_logprobs: tuple[float, ...] = ()
    """Log-probabilities of the tokens that `Signals.tokens` names, in their order."""


@dataclass(frozen=True, slots=True)
class NextTokens:
    """Of next-token distributions what every step needs, computed for all rows at once."""

    log_z: Tensor
    """(rows,) log-partitions."""
    entropy: Tensor | None
    """(rows,) in nats; None unless some row wants it."""
    likeliest: Tensor
    """(rows,) the token with the (first) largest logit."""
    largest: Tensor
    """(rows,) that logit."""

    @classmethod
    def of(cls, logits: Tensor, *, entropy: bool) -> NextTokens:
        """Of (rows, vocabulary) float32."""
        log_z, entropies = distribution(logits, entropy=entropy)
        likeliest = greedy(logits)
        return cls(log_z, entropies, likeliest, logits.gather(-1, likeliest[:, None])[:, 0])

    def part(self, start: int, end: int) -> NextTokens:
        """Of some of the rows."""
        entropy = None if self.entropy is None else self.entropy[start:end]
        return NextTokens(self.log_z[start:end], entropy, self.likeliest[start:end], self.largest[start:end])

    def rows(self) -> list[NextToken]:
        """One by one; two transfers from the device."""
        import torch

        columns = (self.log_z, self.largest) if self.entropy is None else (self.log_z, self.largest, self.entropy)
        numbers = torch.stack(columns, 1).tolist()
        return [
            NextToken(row[0], row[2] if len(row) > 2 else None, token, row[1])
            for row, token in zip(numbers, self.likeliest.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class NextToken:
    """See `NextTokens`."""

    log_z: float
    entropy: float | None
    likeliest: int
    largest: float


def distribution(logits: Tensor, *, entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Log-partition and entropy of next-token distributions.

    `log p(v) = logits[v] - logZ`; `H = logZ - sum_v p(v) logits[v]`. One table of exponentials serves both, which costs
    a third of what a table of log-probabilities would.

    Args:
        logits: (..., vocabulary) float32; -inf is allowed.
        entropy: Whether to compute the entropy.

    Returns:
        `logZ`: (...,), and the entropy in nats: (...,) or None.
    """
    import torch

    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()  # in place: new memory for a second table takes longer than to compute it
    total = weights.sum(-1)
    log_z = top[..., 0] + total.log()
    if not entropy:
        return log_z, None
    mean = torch.linalg.vecdot(weights, logits) / total
    if bool(mean.isnan().any()):  # 0 * -inf: tokens that cannot occur
        mean = (weights * logits).nansum(-1) / total
    return log_z, (log_z - mean).clamp_min(0.0)
