"""Sampled softmax: the losses of counted tokens over a part of the vocabulary.

The normaliser of a softmax is a sum over the vocabulary. Some tokens of a document are always part of it: the targets,
those that a teacher or the base model finds likely. Of the others, each step draws `n` of `N` and counts each of them
`N / n` times, which makes the sum an unbiased estimate (Jean et al. 2015, arXiv 1412.2007, section 3):

    Z ~ sum_kept exp(z_v) + N / n * sum_drawn exp(z_v),    so drawn logits are raised by log(N / n)

The sequence of draws goes through all the others before it repeats, so every token takes part. Knows nothing of losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class DrawnOutput:
    """The output layer of a document in one step: the rows of the kept and of the drawn tokens."""

    weight: Tensor
    """(tokens, hidden)."""
    bias: Tensor | None
    """(tokens,)."""
    raised: Tensor
    """(tokens,) float32, added to the logits: 0 for kept tokens, log(N / n) for drawn ones."""
    columns: Tensor
    """(vocabulary,) int64, the column of each kept token; -1 for the others."""

    def logits(self, states: Tensor) -> Tensor:
        """Return (counted, tokens) float32 logits of (counted, hidden) states."""
        return functional.linear(states, self.weight, self.bias).float() + self.raised


class SampledOutput:
    """Draws the output layer of one document.

    Args:
        head: The model's output layer (`plain_head`).
        kept: IDs of the tokens that always take part.
        sampled: Number of other tokens per draw; all others if there are no more than that.
        seed: Determines the draws.
    """

    def __init__(self, head: nn.Linear, kept: Tensor, sampled: int, seed: int) -> None:
        self._head = head
        self._kept = kept.unique()
        device, size = head.weight.device, head.out_features
        others = torch.ones(size, dtype=torch.bool, device=device)
        others[self._kept] = False
        order = torch.randperm(int(others.sum()), generator=torch.Generator().manual_seed(seed))
        self._others = others.nonzero()[:, 0][order.to(device)]
        self._sampled = min(sampled, len(self._others))
        self._columns = torch.full((size,), -1, device=device)
        self._columns[self._kept] = torch.arange(len(self._kept), device=device)
        self._weight = head.weight[self._kept]
        self._raised = torch.zeros(len(self._kept) + self._sampled, device=device)
        if self._sampled:
            self._raised[len(self._kept) :] = math.log(len(self._others) / self._sampled)

    def drawn(self, step: int) -> DrawnOutput:
        """Return the output layer of step `step` (from 0)."""
        places = step * self._sampled + torch.arange(self._sampled, device=self._others.device)
        drawn = self._others[places % max(len(self._others), 1)]
        weight = torch.cat([self._weight, self._head.weight[drawn]])
        bias = None if self._head.bias is None else self._head.bias[torch.cat([self._kept, drawn])]
        return DrawnOutput(weight.detach(), None if bias is None else bias.detach(), self._raised, self._columns)


def plain_head(model: PreTrainedModel, *, apart: bool) -> nn.Linear:
    """Return the model's output layer.

    Args:
        model: The base model.
        apart: Whether this layer alone turns the decoder's states into logits.

    Raises:
        ConfigurationError: If the logits of some tokens cannot be computed from rows of this layer alone.
    """
    head = model.get_output_embeddings()
    name = type(model).__name__
    if not apart:
        raise ConfigurationError(
            f"sampled_softmax needs a model whose logits are its output layer's; {name} scales or caps them (or has "
            "no separate output layer). Use sampled_softmax=None"
        )
    if not isinstance(head, nn.Linear) or "forward" in vars(head):
        raise ConfigurationError(
            f"sampled_softmax needs a plain nn.Linear as the output layer; that of {name} is a "
            f"{type(head).__name__}, or something has replaced its forward. Use sampled_softmax=None"
        )
    return head
