"""What the engine is asked for and what it gives back: plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rag_backbone.engine.adapters import AdapterSet
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals, TokenStep
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["eos", "length", "stop", "cancelled"]


@dataclass(frozen=True, slots=True)
class Request:
    """One generation."""

    prompt: str | Sequence[int]
    """Text, tokenised with the model's special tokens; or token ids, taken as they are."""
    max_new_tokens: int = 128
    stop: Sequence[str] = ()
    """Strings at which to stop; they do not appear in the text."""
    sampling: Sampling = field(default_factory=Sampling)
    signals: Signals = field(default_factory=Signals)
    adapters: AdapterSet | None = None
    stop_when: Callable[[TokenStep], bool] | None = None
    """Called with each step in turn, in the thread that decodes; true ends the generation after it (`"cancelled"`)."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigurationError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed")
        if isinstance(self.stop, str):
            raise ConfigurationError(f"stop is the string {self.stop!r}; a list of strings is needed: [{self.stop!r}]")


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How much work something was. `a + b` and `a - b` work field by field."""

    forwards: int = 0
    """Calls of the model."""
    forward_tokens: int = 0
    """Tokens that entered a forward, prefill and decoding together."""
    cached_tokens: int = 0
    """Prompt tokens that needed no forward because a prefix was known."""
    generated_tokens: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.forwards + other.forwards,
            self.forward_tokens + other.forward_tokens,
            self.cached_tokens + other.cached_tokens,
            self.generated_tokens + other.generated_tokens,
        )

    def __sub__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.forwards - other.forwards,
            self.forward_tokens - other.forward_tokens,
            self.cached_tokens - other.cached_tokens,
            self.generated_tokens - other.generated_tokens,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Generation:
    """A finished generation."""

    text: str
    steps: tuple[TokenStep, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    counts: TokenCounts
    stop_string: str | None = None
    """Which stop string was met."""

    @property
    def token_ids(self) -> list[int]:
        """The generated ids, without the end-of-sequence token."""
        return [step.token_id for step in self.steps]

    def __repr__(self) -> str:
        return (
            f"Generation({self.text!r}, {len(self.steps)} tokens, finish_reason={self.finish_reason!r}, "
            f"prompt_tokens={self.prompt_tokens}, cached={self.counts.cached_tokens})"
        )


@dataclass(frozen=True, slots=True)
class ScoredText:
    """Signals of a given continuation, from one forward."""

    token_ids: tuple[int, ...]
    logprobs: Tensor
    """(tokens,) log-probability of each token after what precedes it."""
    entropies: Tensor
    """(tokens,) entropy of the distribution that each token was drawn from, in nats."""
    attention: Tensor | None
    """(heads, tokens + 1, prompt + tokens): row `t` is the query that predicts token `t`; the last row is that of
    the last token. None unless asked for."""
