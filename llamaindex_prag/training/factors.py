"""The LoRA factors of many documents on one model.

Every factor has a leading document dimension, and each row of a batch uses the factors of its own document:

    h = x A[doc]^T   (rows, tokens, in) x (rows, in, rank)
    y = W x + s h B'[doc]

All values lie in one (documents, layout.size) buffer. A document's adapter is one row of it, an optimiser step is a few
operations on the whole buffer, and a document's update never depends on the other documents in training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.patched_forwards import patched_forwards
from llamaindex_prag.adapters.targets import target_layers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def initial_values(layout: Layout, seed: int) -> Tensor:
    """Return (layout.size,) float32: random `A` (Kaiming uniform with a = sqrt 5, as in PEFT) and zero `B`.

    The values are the same for every document of a recipe, so that all adapters start from the same input subspace.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(layout.size)
    for target, offset in zip(layout.targets, layout.a_offsets, strict=True):
        # gain * sqrt(3 / in) with gain = sqrt(2 / (1 + 5)) is 1 / sqrt(in)
        bound = 1.0 / math.sqrt(target.inputs)
        part = values[offset : offset + layout.rank * target.inputs]
        part.uniform_(-bound, bound, generator=generator)
    return values


class DocumentFactors:
    """Trainable factors of several documents.

    Args:
        model: The base model; it is not changed.
        layout: Layout of each adapter.
        start: (layout.size,) or (documents, layout.size) float32 initial values.
        documents: Number of documents.
        scale: Factor that multiplies `B A`.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout, start: Tensor, documents: int, scale: float) -> None:
        self.values = start.detach().float().expand(documents, layout.size).clone().to(model.device)
        """(documents, layout.size) float32."""
        self.gradients = torch.zeros_like(self.values)
        self._scale = scale
        self._rows = torch.empty(0, dtype=torch.long)
        """The document of each row."""
        self._acting: Tensor | None = None
        self._factors = []
        for target, a, b in zip(layout.targets, layout.a_offsets, layout.b_offsets, strict=True):
            self._factors.append(
                (self._leaf(a, layout.rank, target.inputs), self._leaf(b, layout.rank, target.outputs))
            )
        layers = target_layers(model, layout)
        self._forwards = [(vars(layer), self._forward_of(i, layer)) for i, layer in enumerate(layers)]

    def _leaf(self, offset: int, rank: int, width: int) -> Tensor:
        """Return a (documents, rank, width) view of `values`, with the matching view of `gradients` as its `grad`."""
        part = slice(offset, offset + rank * width)
        leaf = self.values[:, part].view(-1, rank, width).detach().requires_grad_()
        leaf.grad = self.gradients[:, part].view(-1, rank, width)
        return leaf

    @contextlib.contextmanager
    def on(self, documents: Tensor, acting: Tensor | None = None) -> Iterator[None]:
        """Make forward passes within this context use the factors of document `documents[i]` for batch row `i`.

        Args:
            documents: (rows,) int64.
            acting: (rows, tokens) bool, the tokens on which the factors act; None for all.
        """
        self._rows = documents
        self._acting = acting
        with patched_forwards(self._forwards):
            yield

    def _forward_of(self, index: int, layer: nn.Linear) -> Callable[[Tensor], Tensor]:
        def forward(states: Tensor) -> Tensor:
            a, b = (factor.index_select(0, self._rows).to(states.dtype) for factor in self._factors[index])
            inner = states @ a.transpose(1, 2)
            if self._acting is not None:
                inner = inner * self._acting.unsqueeze(-1)
            return torch.add(functional.linear(states, layer.weight, layer.bias), inner @ b, alpha=self._scale)

        return forward


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) with a step count per document.

    Args:
        factors: The factors to train.
        learning_rate: Learning rate at full size; `step` can take a fraction of it.
        weight_decay: Decoupled weight decay.
        epsilon: Added to the square root of the second moment.
        project: Takes out of (documents, layout.size) values, in place, what may not be learnt. It is applied to the
            initial values, and in each step to the gradients and the new values.
    """

    def __init__(
        self,
        factors: DocumentFactors,
        learning_rate: float,
        weight_decay: float,
        epsilon: float,
        project: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._factors = factors
        self._project = project or (lambda _: None)
        self._project(factors.values)
        self._rate = learning_rate
        self._decay = weight_decay
        self._epsilon = epsilon
        self._mean = torch.zeros_like(factors.values)
        self._square = torch.zeros_like(factors.values)
        self._steps = torch.zeros(len(factors.values), 1, device=factors.values.device)
        self._betas = (0.9, 0.999)

    @torch.no_grad()
    def step(self, documents: list[int], parts: Sequence[float] | None = None) -> None:
        """Update the given documents from their gradients, then set all gradients to zero.

        Args:
            documents: Indices of the documents to update.
            parts: Fraction of the learning rate for each of them; None for the full rate.
        """
        factors, (beta1, beta2) = self._factors, self._betas
        # Usually all documents are updated; a slice then avoids gathering rows.
        where: slice | list[int] = slice(None) if len(documents) == len(factors.values) else documents
        self._project(factors.gradients)
        gradients = factors.gradients[where]
        self._steps[where] += 1
        mean = self._mean[where].lerp_(gradients, 1 - beta1)
        square = self._square[where].mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        steps = self._steps[where]
        denominator = (square / (1 - beta2**steps)).sqrt_().add_(self._epsilon)
        rates = self._rate * steps.new_tensor(parts or [1.0]).unsqueeze(1)
        values = factors.values[where].mul_(1 - rates * self._decay)
        values -= rates * (mean / (1 - beta1**steps)) / denominator
        if not isinstance(where, slice):  # indexing with a list copies
            self._mean[where], self._square[where], factors.values[where] = mean, square, values
        self._project(factors.values)
        factors.gradients.zero_()
