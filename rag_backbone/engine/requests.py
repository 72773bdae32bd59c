"""The engine's requests and results, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """A request for one generation: prompt, limits, sampling, and the signals to report.

    Raises:
        ConfigurationError: If `max_new_tokens` is less than 1, or `stop` is a string instead of a list.
    """

    prompt: str | Sequence[int]
    """Text, tokenised with the model's special tokens; or token ids, used as they are."""
    max_new_tokens: int = 128
    stop: Sequence[str] = ()
    """Strings at which to stop; they do not appear in the text."""
    sampling: Sampling = field(default_factory=Sampling)
    signals: Signals = field(default_factory=Signals)
    adapters: AdapterSet | None = None
    """Adapters that act in this generation, or an `AdapterEnsemble`, whose members answer together."""
    answer_from: int | None = None
    """Length in tokens of the part of the prompt before an answer that has begun, for adapters that act from the answer
    on. None: the whole prompt comes before the answer."""
    stop_when: Callable[[TokenStep], bool] | None = None
    """Called with each step in turn, in the caller's thread; if it returns true, generation ends after that step
    (`"cancelled"`)."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigurationError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed")
        if isinstance(self.stop, str):
            raise ConfigurationError(f"stop is the string {self.stop!r}; a list of strings is needed: [{self.stop!r}]")


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Amount of work done. `a + b` and `a - b` work field by field."""

    forwards: int = 0
    """Forward passes of the model."""
    forward_tokens: int = 0
    """Tokens processed in forward passes, in prefill and decode."""
    cached_tokens: int = 0
    """Prompt tokens that needed no forward pass because a cached prefix covered them."""
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
    """A finished generation: its text, and a `TokenStep` with the requested signals for each token.

    `finish_reason` says why it ended; `counts` how much work it was.
    """

    text: str
    steps: tuple[TokenStep, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    counts: TokenCounts
    stop_string: str | None = None
    """The stop string that ended the text, if any."""

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
    """Signals of a given continuation, from one forward pass."""

    token_ids: tuple[int, ...]
    logprobs: Tensor
    """Log-probability of each token given the tokens before it: (tokens,)."""
    entropies: Tensor
    """Entropy in nats of the distribution before each token: (tokens,)."""
    attention: Tensor | None
    """Attention rows, (heads, tokens + 1, prompt + tokens): row `t` is the query that predicts token `t`, and the final
    row is that of the last token. None unless requested."""
    hidden_states: Mapping[str | int, Tensor] = field(default_factory=dict)
    """The output of each requested module at the positions that predict the tokens: (tokens, width) float32."""
