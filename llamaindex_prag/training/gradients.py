"""Computes the losses of several documents and their gradients with respect to the factors, in few forward passes.

    (document, its sequences) ... -> rows with shared prefixes -> bounded forward passes -> one loss per document

Each document's loss is the mean over its own counted tokens, so one document's result never depends on the others.
Knows nothing of optimisers: the factors may be trained directly or be the output of a translator.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.progress import Tick
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.lower_layers import LowerLayers
from llamaindex_prag.training.objective import Batch, CountedLogits, batch_of, losses_of
from llamaindex_prag.training.packs import Pack, rows_of
from llamaindex_prag.training.prompt_states import PromptState, PromptStates, answer_of, answer_rows
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from rag_backbone.engine.adapters import ActsFrom
    from rag_backbone.engine.engine import Engine


BaseStates = Mapping[int, "Tensor | PromptState"]
"""What adapters never change of each sequence, by the `id()` of the sequence."""


class DocumentLosses:
    """Losses of documents' sequences under their factors, and the gradients of these losses.

    Args:
        engine: The engine that owns the model; it can serve other requests between two forward passes.
        layout: Layout of the factors.
        tokens_at_once: Maximum number of padded tokens in one forward pass. None for 512 on a CPU, whose caches hold no
            larger table of logits, and 8192 elsewhere.
        acts_from: Where the factors begin to act: at the first token, or at the one that predicts the first counted.
    """

    def __init__(
        self, engine: Engine, layout: Layout, tokens_at_once: int | None = None, *, acts_from: ActsFrom = "prompt"
    ) -> None:
        if tokens_at_once is None:
            tokens_at_once = 512 if engine.model.device.type == "cpu" else 8192
        if tokens_at_once < 1:
            raise ConfigurationError(f"tokens_at_once is {tokens_at_once}; at least 1 is needed")
        self._engine = engine
        self._tokens = tokens_at_once
        self._acts_from = acts_from
        self._pad = engine.tokenizer.pad_token_id or 0
        self._logits = engine.run(CountedLogits, engine.model)
        self._lower = engine.run(LowerLayers, engine.model, layout)
        self._prompts: PromptStates | None = None
        if acts_from == "answer":
            made = engine.run(PromptStates, engine.model, self._lower, self._logits)
            self._prompts = made if made.usable else None

    @property
    def first_adapted(self) -> int:
        """Number of decoder layers below the adapters that can be computed separately (`lower_states`)."""
        return self._lower.count

    def lower_states(self, examples: Sequence[Example], advance: Tick | None = None) -> BaseStates:
        """Compute what adapters never change: each sequence's hidden states below the first adapted layer.

        With adapters that act from the answer on, the keys and values of its prompt too.

        Args:
            examples: The sequences.
            advance: Called after each forward pass with the fraction of this work that it was.

        Returns:
            By the `id()` of the sequence, (tokens, hidden) states, or a `PromptState`; empty if there is nothing that
            adapters never change.
        """
        found: dict[int, Tensor | PromptState] = {}
        # A layer with a sliding window sees less of a long prompt than its kept keys.
        prompts = self._prompts if all(len(e.ids) <= self._logits.widest for e in examples) else None
        packs = self._logits.packs(examples, self._tokens) if self._lower.count or prompts else []
        for part in _forwards([(0, pack) for pack in packs], self._tokens):
            states = self._engine.run(self._lower_states, self._engine.model, [pack for _, pack in part], prompts)
            in_order = (e for _, pack in part for e in pack.examples)
            found |= {id(e): known for e, known in zip(in_order, states, strict=True)}
            _tell(advance, part, packs)
        return found

    def backward(
        self,
        factors: DocumentFactors,
        active: Mapping[int, Sequence[Example]],
        lower: BaseStates,
        advance: Tick | None = None,
    ) -> dict[int, float]:
        """Add the gradients to `factors.gradients` and return the losses.

        Args:
            factors: Factors of all documents.
            active: Sequences by document index.
            lower: Result of `lower_states` for these sequences, or empty.
            advance: Called after each forward pass with the fraction of this work that it was.

        Returns:
            Losses by document index, in nats per counted token.
        """
        return self._losses(factors, active, lower, advance, gradients=True)

    def values(
        self, factors: DocumentFactors, active: Mapping[int, Sequence[Example]], lower: BaseStates
    ) -> dict[int, float]:
        """Return the losses as `backward` does, without computing gradients."""
        return self._losses(factors, active, lower, None, gradients=False)

    def _losses(
        self,
        factors: DocumentFactors,
        active: Mapping[int, Sequence[Example]],
        lower: BaseStates,
        advance: Tick | None,
        *,
        gradients: bool,
    ) -> dict[int, float]:
        counted = {i: sum(e.counted for e in examples) for i, examples in active.items()}
        if any(isinstance(state, PromptState) for state in lower.values()):
            packs = []
            states: dict[int, Tensor | PromptState] = {}
            for i, of in active.items():
                answers = [answer_of(e) for e in of]
                packs += [(i, row) for row in answer_rows(answers, self._tokens)]
                states |= {id(answer): lower[id(e)] for answer, e in zip(answers, of, strict=True)}
            lower = states
        else:
            packs = [(i, pack) for i, of in active.items() for pack in self._logits.packs(of, self._tokens)]
        found = torch.zeros(len(factors.values))
        for part in _forwards(packs, self._tokens):
            owners = torch.tensor([i for i, _ in part])
            shares = [1 / counted[i] for i, _ in part]
            losses, rows = self._engine.run(
                self._forward, self._engine.model, part, shares, factors, lower, gradients=gradients
            )
            found.index_add_(0, owners[rows], losses)
            _tell(advance, part, [pack for _, pack in packs])
        return {i: float(found[i]) for i in active}

    def _lower_states(
        self, model: PreTrainedModel, packs: Sequence[Pack], prompts: PromptStates | None
    ) -> Sequence[Tensor | PromptState]:
        rows = rows_of(packs, self._pad, model.device)
        return rows.part(self._lower.states(rows)) if prompts is None else prompts.read(rows)

    def _forward(
        self,
        model: PreTrainedModel,
        part: Sequence[tuple[int, Pack]],
        shares: Sequence[float],
        factors: DocumentFactors,
        lower: BaseStates,
        *,
        gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return each counted token's weighted loss and row, and run the backward pass if gradients are wanted."""
        owners = torch.tensor([i for i, _ in part], device=model.device)
        with frozen(model), torch.set_grad_enabled(gradients):
            batch = batch_of([pack for _, pack in part], model.device, pad=self._pad, weights=shares)
            known = [lower[id(e)] for e in batch.examples] if lower else []
            losses = losses_of(self._adapted(batch, factors, owners, known), batch)
            if gradients:
                _backward(losses)
        return losses.detach().cpu(), batch.rows.cpu()

    def _adapted(
        self, batch: Batch, factors: DocumentFactors, owners: Tensor, known: Sequence[Tensor | PromptState]
    ) -> Tensor:
        """Return the logits of the counted tokens under the factors."""
        prompts = [state for state in known if isinstance(state, PromptState)]
        if self._prompts is not None and prompts:
            with factors.on(owners):
                return self._prompts(batch, prompts)
        states = [state for state in known if isinstance(state, torch.Tensor)]
        acting = batch.sequences.predicting if self._acts_from == "answer" else None
        with factors.on(owners, acting), self._lower.given(batch.sequences.joined(states) if states else None):
            return self._logits(batch)


def _tell(advance: Tick | None, part: Sequence[tuple[int, Pack]], packs: Sequence[Pack]) -> None:
    if advance is not None:
        advance(sum(pack.width for _, pack in part) / sum(pack.width for pack in packs))


def _backward(losses: Tensor) -> None:
    with warnings.catch_warnings():
        # The gradients are views of one buffer, so they cannot have the strides that torch prefers.
        warnings.filterwarnings("ignore", message="grad and param do not obey")
        losses.sum().backward()


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Freeze all parameters of the model within this context, and restore their `requires_grad` afterwards."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _forwards(rows: list[tuple[int, Pack]], tokens: int) -> Iterator[list[tuple[int, Pack]]]:
    """Group rows of similar width, with at most `tokens` padded tokens per group (or a single row), by document."""
    part: list[tuple[int, Pack]] = []
    for row in sorted(rows, key=lambda r: r[1].width):
        if part and (len(part) + 1) * row[1].width > tokens:
            yield sorted(part, key=lambda r: r[0])
            part = []
        part.append(row)
    if part:
        yield sorted(part, key=lambda r: r[0])
