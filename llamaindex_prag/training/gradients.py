"""Computes the losses of several documents and their gradients with respect to the factors, in few forward passes.

    (document, its sequences) ... -> rows with shared prefixes -> bounded forward passes -> one loss per document

Each document's loss is the mean over its own counted tokens, so one document's result never depends on the others.
Knows nothing of optimisers: the factors may be trained directly or be the output of a translator.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.progress import Tick
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.lower_layers import LowerLayers
from llamaindex_prag.training.objective import Batch, CountedLogits, batch_of, given_of, losses_at, losses_of
from llamaindex_prag.training.packs import Pack, rows_of
from llamaindex_prag.training.prompt_states import PromptState, PromptStates, answer_of, answer_rows
from llamaindex_prag.training.sampled_softmax import DrawnOutput, SampledOutput, plain_head
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from rag_backbone.engine.adapters import ActsFrom
    from rag_backbone.engine.engine import Engine


LIKELY = 16
"""Number of likely tokens of the base model, at each counted token, that a sampled softmax keeps."""
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

    def output_layer(self) -> nn.Linear:
        """Return the layer whose rows a sampled softmax draws.

        Raises:
            ConfigurationError: If the model's logits are not those of a plain output layer.
        """
        return plain_head(self._engine.model, apart=self._logits.apart)

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

    def sampled_outputs(
        self, documents: Sequence[tuple[int, Sequence[Example]]], lower: BaseStates, sampled: int
    ) -> list[SampledOutput]:
        """Return each document's output layer over a part of the vocabulary (`training.sampled_softmax`).

        Args:
            documents: A seed, and the sequences, of each document.
            lower: Result of `lower_states` for these sequences, or empty.
            sampled: Number of tokens to draw besides those that a document keeps.

        Raises:
            ConfigurationError: As `output_layer`.
        """
        head = self.output_layer()
        found = []
        for seed, examples in documents:
            kept = [torch.tensor(e.ids[e.counted_from :]) for e in examples]
            kept += [e.teacher.ids.flatten() for e in examples if e.teacher is not None]
            told = [e for e in examples if e.teacher is None]
            kept.append(self._engine.run(self._likely, self._engine.model, told, lower))
            found.append(SampledOutput(head, torch.cat(kept).to(head.weight.device), sampled, seed))
        return found

    @torch.no_grad()
    def _likely(self, model: PreTrainedModel, examples: Sequence[Example], lower: BaseStates) -> Tensor:
        """Return the tokens that the base model finds likely where these sequences' counted tokens are."""
        known = [state for e in examples if isinstance(state := lower.get(id(e)), PromptState)]
        found = [torch.empty(0, dtype=torch.long)]
        if known:
            logits = [model.get_output_embeddings()(part) for part in torch.cat([s.last for s in known]).split(128)]
        else:
            packs = self._logits.packs(examples, self._tokens)
            logits = [self._logits(batch_of([pack], model.device, pad=self._pad)) for pack in packs]
        found += [part.topk(min(LIKELY, part.shape[-1])).indices.unique().cpu() for part in logits]
        return torch.cat(found)

    def backward(
        self,
        factors: DocumentFactors,
        active: Mapping[int, Sequence[Example]],
        lower: BaseStates,
        advance: Tick | None = None,
        outputs: Mapping[int, DrawnOutput] | None = None,
    ) -> dict[int, float]:
        """Add the gradients to `factors.gradients` and return the losses.

        Args:
            factors: Factors of all documents.
            active: Sequences by document index.
            lower: Result of `lower_states` for these sequences, or empty.
            advance: Called after each forward pass with the fraction of this work that it was.
            outputs: Sampled output layers by document index; None: the whole vocabulary.

        Returns:
            Losses by document index, in nats per counted token.
        """
        return self._losses(factors, active, lower, advance, outputs, gradients=True)

    def values(
        self, factors: DocumentFactors, active: Mapping[int, Sequence[Example]], lower: BaseStates
    ) -> dict[int, float]:
        """Return the losses as `backward` does, without computing gradients."""
        return self._losses(factors, active, lower, None, None, gradients=False)

    def _losses(
        self,
        factors: DocumentFactors,
        active: Mapping[int, Sequence[Example]],
        lower: BaseStates,
        advance: Tick | None,
        outputs: Mapping[int, DrawnOutput] | None,
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
                self._forward, self._engine.model, part, shares, factors, lower, outputs, gradients=gradients
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
        outputs: Mapping[int, DrawnOutput] | None,
        *,
        gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return each counted token's weighted loss and row, and run the backward pass if gradients are wanted."""
        owners = torch.tensor([i for i, _ in part], device=model.device)
        with frozen(model), torch.set_grad_enabled(gradients):
            batch = batch_of([pack for _, pack in part], model.device, pad=self._pad, weights=shares)
            known = [lower[id(e)] for e in batch.examples] if lower else []
            run = self._logits.run if outputs is None else self._logits.states
            found = self._adapted(batch, factors, owners, known, run)
            losses = losses_of(found, batch) if outputs is None else _sampled(found, batch, part, outputs)
            if gradients:
                _backward(losses)
        return losses.detach().cpu(), batch.rows.cpu()

    def _adapted(
        self,
        batch: Batch,
        factors: DocumentFactors,
        owners: Tensor,
        known: Sequence[Tensor | PromptState],
        run: Callable[[Batch, Mapping[str, Any]], Tensor],
    ) -> Tensor:
        """Return what `run` computes for the counted tokens under the factors."""
        prompts = [state for state in known if isinstance(state, PromptState)]
        if self._prompts is not None and prompts:
            with factors.on(owners), self._prompts.resumed(batch, prompts) as given:
                return run(batch, given)
        states = [state for state in known if isinstance(state, torch.Tensor)]
        acting = batch.sequences.predicting if self._acts_from == "answer" else None
        with factors.on(owners, acting), self._lower.given(batch.sequences.joined(states) if states else None):
            return run(batch, given_of(batch))


def _sampled(
    states: Tensor, batch: Batch, part: Sequence[tuple[int, Pack]], outputs: Mapping[int, DrawnOutput]
) -> Tensor:
    """Return (counted,) weighted losses of (counted, hidden) states, each document's over its own part of the tokens.

    A document's rows follow each other in `part`.
    """
    examples: dict[int, list[Example]] = {}
    for i, pack in part:
        examples.setdefault(i, []).extend(pack.examples)
    counts = [sum(e.counted for e in of) for of in examples.values()]
    losses = [
        losses_at(outputs[i].logits(own), targets, of, outputs[i].columns)
        for (i, of), own, targets in zip(
            examples.items(), states.split(counts), batch.targets.split(counts), strict=True
        )
    ]
    return torch.cat(losses) * batch.weights


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
