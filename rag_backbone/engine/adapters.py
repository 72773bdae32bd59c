"""Protocols that connect adapters to the engine; they are implemented elsewhere.

The engine needs three things from an adapter set: a key that identifies it, so that the prefix cache never serves keys
and values computed with other parameters; whether it acts on the prompt, or from the answer on only (activated LoRA,
Greenewald et al. 2025, arXiv 2504.12397), in which case all sets share the base model's keys and values of the prompt;
and a context in which one forward pass applies each sequence's own set. This module does not know what an adapter is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, runtime_checkable

from rag_backbone.errors import ConfigurationError

ActsFrom = Literal["prompt", "answer"]
"""Where adapters begin to act: at the first token of the prompt, or at its last token, which predicts the first token
of the answer."""
Ensemble = Literal["mixture", "product"]
"""How the next-token distributions of several adapter sets are mixed (`engine.ensemble`): by their weighted arithmetic
or geometric mean."""


@runtime_checkable
class AdapterSet(Protocol):
    """The adapters of one generation: which ones, their weights and their scale.

    The engine only compares and hashes its key: sequences share a cached prefix only if they have the same adapters.
    """

    @property
    def cache_key(self) -> Hashable:
        """Key that is equal for two sets if and only if their members, weights and scale are the same."""
        ...

    @property
    def acts_from(self) -> ActsFrom:
        """Where in a sequence the adapters begin to act."""
        ...


@runtime_checkable
class AdapterBackend(Protocol):
    """Applies adapter sets to the model that an engine owns.

    The engine knows nothing of adapters but this protocol. It may run sequences with different sets in one forward
    pass.
    """

    def activate(self, rows: Sequence[AdapterSet | None]) -> AbstractContextManager[None]:
        """Return a context for one forward pass in which batch row `i` runs with `rows[i]` (`None`: the base model).

        The engine enters the context in the model thread, around every single forward pass, so an implementation needs
        no locking. On exit the model must behave as the base model again.
        """
        ...


@runtime_checkable
class PackedBackend(AdapterBackend, Protocol):
    """A backend that can apply different adapter sets to parts of one packed batch row.

    With any other backend, prompts with different adapters are prefilled in separate forward passes, and no adapter can
    act from the answer on.
    """

    def activate_packed(
        self, rows: Sequence[AdapterSet | None], lengths: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Return a context like `activate`, for a single packed batch row.

        Args:
            rows: The adapter set of each part of the packed row.
            lengths: How many tokens each part occupies, in the same order.
        """
        ...


@dataclass(frozen=True, slots=True)
class LateKey:
    """Key of a sequence that the base model computed up to `start`, and an adapter set from there on."""

    adapters: Hashable
    start: int


@dataclass(frozen=True, slots=True)
class SequenceAdapters:
    """The adapters of one sequence, and from which token they act.

    Use `SequenceAdapters.of`.
    """

    adapters: AdapterSet | None
    start: int = 0
    """Number of leading tokens of the sequence that the base model computes."""
    position: int = 0
    """Number of tokens computed before the current forward pass."""

    @classmethod
    def of(cls, adapters: AdapterSet | None, prompt: int, answer_from: int | None = None) -> Self:
        """Return the adapters of a sequence.

        Args:
            adapters: The set; None for the base model.
            prompt: Length of the prompt, in tokens.
            answer_from: Length of the part of the prompt before an answer that has begun; None if the whole prompt
                comes before the answer.

        Raises:
            ConfigurationError: If `answer_from` is below 1 or beyond the prompt.
        """
        if answer_from is not None and not 1 <= answer_from <= prompt:
            raise ConfigurationError(
                f"answer_from is {answer_from} in a prompt of {prompt} tokens; an answer begins after at least one "
                "token, and at the latest where the prompt ends"
            )
        late = adapters is not None and adapters.acts_from == "answer"
        return cls(adapters, max((prompt if answer_from is None else answer_from) - 1, 0) if late else 0)

    def at(self, position: int) -> Self:
        """Return the same adapters for a forward pass after `position` tokens."""
        return replace(self, position=position)

    def parts(self, tokens: int) -> list[tuple[AdapterSet | None, int]]:
        """Split the next `tokens` tokens into those of the base model and those with adapters, each with its number."""
        base = min(max(self.start - self.position, 0), tokens)
        parts = [(None, base), (self.adapters, tokens - base)]
        return [part for part in parts if part[1]]

    @property
    def key(self) -> Hashable:
        """Key of the sequence's keys and values; None for the base model."""
        if self.adapters is None:
            return None
        return LateKey(self.adapters.cache_key, self.start) if self.start else self.adapters.cache_key


def tokens_in_common(one: Hashable, other: Hashable) -> float:
    """Return for how many leading tokens two keys stand for the same computation; infinity if always."""
    return float("inf") if one == other else min(_base_tokens(one), _base_tokens(other))


def _base_tokens(key: Hashable) -> float:
    if key is None:
        return float("inf")
    return key.start if isinstance(key, LateKey) else 0


def key_of(adapters: AdapterSet | None) -> Hashable:
    """Return the cache key of an adapter set; None for the base model."""
    return None if adapters is None else adapters.cache_key
