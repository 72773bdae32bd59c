"""Ensembles: several adapter sets that answer one prompt together, by mixing their next-token distributions.

    mixture    p(v) = sum_i w_i p_i(v)                    (REPLUG, Shi et al. 2023, arXiv 2301.12652, section 3.2)
    product    p(v) = prod_i p_i(v)^w_i / Z               (product of experts, Hinton 2002; with weights of sum 1)

`p_i` is the distribution after the prompt and the answer so far with set `i` alone. One token is drawn from `p` and
appended to every member's sequence. The members are decoded in one batch where the model allows that, and share the
prompt's keys and values if they act from the answer on. This module does not know where the weights come from.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import torch

from rag_backbone.engine.adapters import ActsFrom, AdapterSet, Ensemble
from rag_backbone.engine.requests import Generation, Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.sequence import SequenceState
from rag_backbone.engine.signals import NextToken, NextTokens, Signals
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class AdapterEnsemble:
    """Adapter sets whose next-token distributions are mixed; takes the place of an `AdapterSet` in a `Request`.

    Signals of a generation are those of the mixed distribution. Attention and hidden states belong to a single forward
    pass, so an ensemble has none.

    Raises:
        ConfigurationError: If there is no member, the kind is unknown, there is not one weight for each member, or the
            weights are not positive numbers whose sum is 1.
    """

    members: tuple[AdapterSet, ...]
    weights: tuple[float, ...]
    """Weights of the members: above 0, with sum 1."""
    kind: Ensemble = "mixture"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Ensemble):
            raise ConfigurationError(f"ensemble is {self.kind!r}; known: {', '.join(get_args(Ensemble))}")
        if not self.members or len(self.members) != len(self.weights):
            raise ConfigurationError(
                f"an ensemble has {len(self.members)} members and {len(self.weights)} weights; it needs at least one "
                "member, and one weight for each"
            )
        if not all(w > 0 for w in self.weights) or not math.isclose(sum(self.weights), 1.0, rel_tol=1e-6):
            raise ConfigurationError(
                f"the weights of an ensemble are {self.weights}; each must be above 0, and their sum 1"
            )

    @property
    def cache_key(self) -> Hashable:
        """Everything that determines the distribution. No keys and values are cached under it, only the members'."""
        return (self.kind, tuple(member.cache_key for member in self.members), self.weights)

    @property
    def acts_from(self) -> ActsFrom:
        """Where the first member to act begins to act."""
        return "prompt" if any(member.acts_from == "prompt" for member in self.members) else "answer"

    def __len__(self) -> int:
        return len(self.members)


def mixed(logits: Tensor, weights: Sequence[float], kind: Ensemble) -> Tensor:
    """Return the log-probabilities of the mixed distribution, (vocabulary,) float32.

    Args:
        logits: The members' next-token logits, (members, vocabulary) float32; -inf is allowed.
        weights: Above 0, with sum 1.
        kind: The arithmetic mean (`"mixture"`) or the normalised geometric mean (`"product"`).
    """
    logprobs = logits.log_softmax(-1)
    w = torch.tensor(weights, dtype=logits.dtype, device=logits.device)[:, None]
    if kind == "mixture":
        return torch.logsumexp(logprobs + w.log(), 0)
    return (w * logprobs).sum(0).log_softmax(-1)


class MemberState(SequenceState):
    """The sequence of one member: it hands out its logits and is given its tokens."""

    logits: Tensor | None = None
    """Logits of the next token, (vocabulary,) float32, until the ensemble has chosen it."""

    def choose(self, logits: Tensor, following: NextToken, attention: Tensor | None, hidden: Tensor | None) -> None:  # noqa: ARG002
        """Keep the logits; the ensemble chooses."""
        self.logits = logits

    def append(self, token_id: int) -> None:
        """Continue with a token that the ensemble chose."""
        self.generated.append(token_id)
        self.logits = None


class EnsembleState(SequenceState):
    """The text of an ensemble, and the sequences of its members.

    Only the members are scheduled. Once all have their logits, `choose_mixed` chooses the token in the model thread,
    and `take` appends it to the text and to every member.
    """

    def __init__(self, request: Request, *arguments: Any) -> None:
        super().__init__(request, *arguments)
        ensemble = request.adapters
        assert isinstance(ensemble, AdapterEnsemble)
        self._ensemble = ensemble
        plain = replace(request, sampling=Sampling(), signals=Signals(), stop=(), stop_when=None)
        self.members = [MemberState(replace(plain, adapters=one), *arguments) for one in ensemble.members]

    @property
    def scheduled(self) -> list[SequenceState]:
        """The members that still need logits for the next token."""
        return [member for member in self.members if member.logits is None]

    @property
    def parts(self) -> list[SequenceState]:
        """The members, and the text."""
        return [*self.members, self]

    def choose_mixed(self) -> None:
        """Choose the next token from the mixed distribution; runs in the model thread."""
        logits = torch.stack([member.logits for member in self.members if member.logits is not None])
        logprobs = mixed(logits, self._ensemble.weights, self._ensemble.kind)
        (following,) = NextTokens.of(logprobs[None], entropy=self.request.signals.entropy).rows()
        self.choose(logprobs, following, None, None)

    def take(self) -> None:
        """Apply the chosen token to the text and to every member; runs in the caller's thread."""
        before = len(self.generated)
        try:
            super().take()
        finally:  # `stop_when` may raise after the token was appended
            for token_id in self.generated[before:]:
                for member in self.members:
                    member.append(token_id)

    def cancel(self) -> None:
        """Stop generating here; the members end too."""
        super().cancel()
        for member in self.members:
            member.cancel()

    def generation(self) -> Generation:
        """Return the result so far, with the members' work."""
        return replace(super().generation(), counts=sum((one.counts for one in self.members), self.counts))
