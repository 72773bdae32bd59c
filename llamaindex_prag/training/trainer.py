"""The training loop: trains groups of documents with a few forward passes per optimiser step.

In optimiser step `t` of a group, every document sees its own `t`-th batch. All these sequences are sorted by length and
split into forward passes of a bounded number of padded tokens. The losses are summed, each document's loss being the
mean over its own counted tokens, so each document gets the same adapter as if it were trained alone. Knows nothing of
stores, questions or retrieval.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.progress import Tick, scaled
from llamaindex_prag.training.examples import Example, TrainingDocument
from llamaindex_prag.training.factors import AdamW, DocumentFactors, initial_values
from llamaindex_prag.training.gradients import BaseStates, DocumentLosses
from llamaindex_prag.training.null_space import NullSpace
from llamaindex_prag.training.packs import packs_of
from llamaindex_prag.training.sampled_softmax import SampledOutput
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Trained:
    """A document's trained adapter with its losses and number of steps."""

    document: TrainingDocument
    adapter: Adapter
    first_loss: float
    """Mean loss of the first optimiser step, in nats per token."""
    last_loss: float
    """Mean loss of the last optimiser step, in nats per token."""
    steps: int
    """Number of optimiser steps."""


class Trainer:
    """Trains adapters of one layout by one recipe.

    Args:
        engine: The engine that owns the model; it can serve other requests between two forward passes.
        layout: Layout of the adapters.
        recipe: The training recipe.
        documents_at_once: Number of documents in a group.
        tokens_at_once: Maximum number of padded tokens in one forward pass; None for the device's default.
        start: (layout.size,) initial values of every document; None for the recipe's random `A` and zero `B`.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        recipe: Recipe,
        *,
        documents_at_once: int = 8,
        tokens_at_once: int | None = None,
        start: Tensor | None = None,
    ) -> None:
        if documents_at_once < 1:
            raise ConfigurationError(f"documents_at_once is {documents_at_once}; at least 1 is needed")
        self._engine = engine
        self._layout = layout
        self._recipe = recipe
        if start is not None and start.shape != (layout.size,):
            raise ConfigurationError(
                f"start has shape {tuple(start.shape)}; adapters of {layout!r} start from ({layout.size},) values"
            )
        self._start = initial_values(layout, recipe.seed) if start is None else start
        self._together = documents_at_once
        self._losses = DocumentLosses(engine, layout, tokens_at_once, acts_from=recipe.acts_from)
        if recipe.sampled_softmax is not None:
            self._losses.output_layer()  # refuses models without a plain one before any work

    def train(self, documents: Sequence[TrainingDocument], advance: Tick | None = None) -> Iterator[Trained]:
        """Train each document's adapter, and yield a group's adapters when the group is done, longest documents first.

        Args:
            documents: The documents to train.
            advance: Called after each forward pass with the fraction of all work just done; the fractions add up to 1.

        Raises:
            ConfigurationError: If a document has nothing to train on, or a sequence is too long. All documents are
                checked before the first one is trained.
        """
        for document in documents:
            self._check(document)
        waiting = sorted(documents, key=lambda d: (len(d.examples), d.tokens), reverse=True)
        for i in range(0, len(waiting), self._together):
            group = waiting[i : i + self._together]
            yield from self._group(group, scaled(advance, _tokens(group) / _tokens(waiting)))

    @property
    def _part_below(self) -> float:
        """Fraction of a group's work spent on the single pass through the layers below the adapted ones.

        The other layers are run forward and backward in each epoch, which costs three times a forward pass.
        """
        below = self._losses.first_adapted
        above = len(self._engine.model.get_decoder().layers) - below
        return below / (below + 3 * self._recipe.epochs * above)

    def _check(self, document: TrainingDocument) -> None:
        if not document.examples:
            raise ConfigurationError(f"there is nothing to train on for the passage {document.text[:60]!r}")
        longest = max(len(e.ids) for e in document.examples)
        if longest > self._recipe.max_tokens:
            raise ConfigurationError(
                f"a training sequence of the passage {document.text[:60]!r} has {longest} tokens, more than the "
                f"recipe's max_tokens={self._recipe.max_tokens}. Split the document into shorter passages."
            )

    def _group(self, documents: Sequence[TrainingDocument], advance: Tick | None) -> Iterator[Trained]:
        recipe = self._recipe
        engine = self._engine
        factors = engine.run(DocumentFactors, engine.model, self._layout, self._start, len(documents), recipe.scale)
        rates = recipe.learning_rate, recipe.weight_decay, recipe.epsilon
        optimiser = AdamW(factors, *rates, self._projection())
        plans = [plan(document, recipe) for document in documents]
        every = [e for d in documents for e in d.examples]
        below = self._part_below if recipe.epochs > 1 else 0.0
        lower = self._losses.lower_states(every, scaled(advance, below)) if recipe.epochs > 1 else {}
        outputs = [] if (sampled := recipe.sampled_softmax) is None else self._outputs(documents, lower, sampled)
        per_token = (1 - below) / sum(len(e.ids) for plan in plans for batch in plan for e in batch)
        first, last = [0.0] * len(documents), [0.0] * len(documents)
        for step in range(max(len(plan) for plan in plans)):
            active = {i: plan[step] for i, plan in enumerate(plans) if step < len(plan)}
            part = per_token * sum(len(e.ids) for batch in active.values() for e in batch)
            drawn = {i: engine.run(outputs[i].drawn, step) for i in active} if outputs else None
            losses = self._losses.backward(factors, active, lower, scaled(advance, part), drawn)
            engine.run(optimiser.step, list(active), [learning_rate_part(recipe, step, len(plans[i])) for i in active])
            for i, loss in losses.items():
                first[i], last[i] = (loss if step == 0 else first[i]), loss
        values = factors.values.cpu().numpy()
        for i, document in enumerate(documents):
            adapter = Adapter(self._layout, values[i].copy(), recipe.scale)
            yield Trained(document, adapter, first[i], last[i], len(plans[i]))

    def _projection(self) -> Callable[[Tensor], None] | None:
        """Return what takes out of factors what they must not read, if the recipe has a null space."""
        energy = self._recipe.null_space
        return None if energy is None else NullSpace.of(self._engine, self._layout, energy).project

    def _outputs(self, documents: Sequence[TrainingDocument], lower: BaseStates, sampled: int) -> list[SampledOutput]:
        seeds = [random.Random(f"{self._recipe.seed}/{text_hash(d.text)}").getrandbits(63) for d in documents]  # noqa: S311
        asked = [(seed, d.examples) for seed, d in zip(seeds, documents, strict=True)]
        return self._losses.sampled_outputs(asked, lower, sampled)


def _tokens(documents: Sequence[TrainingDocument]) -> int:
    return sum(document.tokens for document in documents)


def learning_rate_part(recipe: Recipe, step: int, steps: int) -> float:
    """Return the fraction of the recipe's learning rate to use in step `step` (from 0) of `steps`."""
    return 1.0 if recipe.schedule == "constant" else 1 - step / steps


def plan(document: TrainingDocument, recipe: Recipe) -> list[list[Example]]:
    """Return the batches of a document in training order.

    PRAG's order is fixed. Distillation first shuffles the sequences that share a prefix among themselves (those with
    the passage, those without), so that a batch shares its prefix, and then shuffles the batches; the seed and the text
    determine both. The first batch is never one that only preserves the model: its gradient would be rounding error,
    and Adam's first step has the same size whatever the size of the gradient.
    """
    size = recipe.batch_size
    if recipe.objective != "distill":
        one = [list(document.examples[i : i + size]) for i in range(0, len(document.examples), size)]
        return one * recipe.epochs
    alike = [list(pack.examples) for pack in packs_of(document.examples, sys.maxsize)]
    plan: list[list[Example]] = []
    for epoch in range(recipe.epochs):
        rng = random.Random(f"{recipe.seed}/{epoch}/{text_hash(document.text)}")  # noqa: S311
        batches = []
        for examples in alike:
            rng.shuffle(examples)
            batches += [examples[i : i + size] for i in range(0, len(examples), size)]
        rng.shuffle(batches)
        plan += batches
    first = next((i for i, batch in enumerate(plan) if not all(e.keeps for e in batch)), 0)
    plan.insert(0, plan.pop(first))
    return plan
